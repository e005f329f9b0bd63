"""The hot operations as CUDA kernels, on a GPU or on the emulator."""
