// NumPy's C API for the files of this layer. One of them (import.cpp) defines
// NDARENA_NUMPY_IMPORT and holds the table; the others share it.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define PY_ARRAY_UNIQUE_SYMBOL NDARENA_ARRAY_API
#ifndef NDARENA_NUMPY_IMPORT
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>

#if NPY_ABI_VERSION < 0x02000000
#define PyDataType_ELSIZE(descr) ((descr)->elsize)
#endif
