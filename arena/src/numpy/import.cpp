#define NDARENA_NUMPY_IMPORT
#include "numpy/api.hpp"

#include "numpy/numpy.hpp"

#include <cstring>

namespace ndarena::numpy {

int import_numpy() noexcept {
    import_array1(-1);
    if (PyArray_GetNDArrayCFeatureVersion() < NPY_1_22_API_VERSION) {
        PyErr_SetString(PyExc_ImportError,
                        "ndarena needs NumPy 1.22 or later (memory handlers, NEP 49)");
        return -1;
    }
    return 0;
}

}  // namespace ndarena::numpy
