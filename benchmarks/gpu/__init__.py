"""All there is to measure on a GPU, by one command that needs PyTorch and Triton and installs nothing."""
