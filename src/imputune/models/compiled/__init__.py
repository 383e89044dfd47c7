"""CSAI's attention and recurrence, compiled from C++: the same results to rounding, in less time.

Installing compiles kernels.cpp where there is a C++ compiler. Without one, on a GPU, in double precision, or with
IMPUTUNE_COMPILED=0 in the environment, PyTorch computes them, in `imputune.models.attention` and
`imputune.models.fast_recurrence`. Both ways agree to about 1e-5. If one of two trainings uses compiled code, they
differ by more, because rounding errors grow while a network trains.
"""
