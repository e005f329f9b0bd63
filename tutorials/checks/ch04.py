"""Exercises of notebook 4, backward by hand."""

from checks import Exercise


def _sigmoid_backward(dy, y):
    return dy * y * (1 - y)


EXERCISES = [
    Exercise(
        number="4.1",
        title="back through σ",
        right=_sigmoid_backward,
        cases=lambda rng: [(rng.normal(size=(3, 2)), rng.random((3, 2)))],
        mistakes={
            "dy is missing: the chain rule multiplies by what comes from above": lambda dy, y: (
                y * (1 - y)
            ),
            "that is tanh's derivative, 1 - y²; σ's is y (1 - y)": lambda dy, y: dy * (1 - y * y),
        },
        hints=["Write σ' with σ itself.", "σ' = σ (1 - σ), times what comes from above."],
    ),
]
