"""GRU4Rec, session-based recommendation with recurrent networks, from scratch in NumPy.

`GRU4Rec` is the model, `NARM` the one with attention, `Hybrid` a mixture with simple methods.
`Sessions` and `read_table` are their data, `Shop` a simulated data set, `gradcheck` the
finite-difference check. `python -m gru4rec_np` lists the commands.
"""

import gru4rec_np.console.interrupt  # noqa: F401 - first, before the slow imports

# isort: split
from gru4rec_np.data.protocols import clean, split
from gru4rec_np.data.sessions import Sessions
from gru4rec_np.data.shop import Shop
from gru4rec_np.data.tables import from_frame, read_table
from gru4rec_np.errors import InputError
from gru4rec_np.models.gru4rec import GRU4Rec
from gru4rec_np.models.hybrid import Hybrid
from gru4rec_np.models.narm import NARM
from gru4rec_np.ops.gradcheck import GradientError, gradcheck

__version__ = "0.2.0.dev0"

__all__ = [
    "NARM",
    "GRU4Rec",
    "GradientError",
    "Hybrid",
    "InputError",
    "Sessions",
    "Shop",
    "clean",
    "from_frame",
    "gradcheck",
    "read_table",
    "split",
]
