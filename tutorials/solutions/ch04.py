"""Solutions of notebook 4, backward by hand."""

# exercise 4.1


def sigmoid_backward(dy, y):
    return dy * y * (1 - y)
