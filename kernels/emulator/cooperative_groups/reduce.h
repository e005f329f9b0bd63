// cooperative_groups.h has reduce.
#include "../cooperative_groups.h"
