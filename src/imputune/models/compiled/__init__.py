"""CSAI and the head `gru`, compiled from C++: the same results to rounding, in less time.

Installing compiles source/ where there is a C++ compiler. Without one, on a GPU, in double precision, or with
IMPUTUNE_COMPILED=0 in the environment, PyTorch computes them, in `imputune.models`. Both ways agree to about 1e-5. If
one of two trainings uses compiled code, they differ by more, because rounding errors grow while a network trains.

Each module has a function that PyTorch differentiates; source/ computes both passes.
"""
