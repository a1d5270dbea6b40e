"""Memory of GPUs, mapped by CUDA's driver. Nothing of it is loaded before a region on a device is attached."""
