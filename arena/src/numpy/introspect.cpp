// Looking at arrays.
#include "numpy/target.hpp"

namespace ndarena::numpy {

std::string handler_name(PyObject* array) {
    // Views have no handler of their own: go to the array that owns the data.
    PyObject* object = array;
    while (object != nullptr && PyArray_Check(object) != 0) {
        auto* a = reinterpret_cast<PyArrayObject*>(object);
        PyObject* capsule = PyArray_HANDLER(a);
        if (capsule != nullptr) {
            const void* p = PyCapsule_GetPointer(capsule, capsule_name);
            if (p == nullptr) {
                PyErr_Clear();
                return {};
            }
            // Arrays made while we stand in for the default carry its capsule.
            if (capsule == PyDataMem_DefaultHandler && lease::find(PyArray_DATA(a)) != nullptr) {
                return handler_title;
            }
            return static_cast<const PyDataMem_Handler*>(p)->name;
        }
        object = PyArray_BASE(a);
    }
    return {};
}

bool is_array(PyObject* object) noexcept { return PyArray_Check(object) != 0; }
unsigned abi_version() noexcept { return NPY_ABI_VERSION; }
unsigned api_target() noexcept { return NPY_FEATURE_VERSION; }

const void* data_of(PyObject* array) noexcept {
    return PyArray_DATA(reinterpret_cast<PyArrayObject*>(array));
}

PyObject* new_table(const std::vector<std::int64_t>& values, std::int64_t columns) {
    npy_intp shape[2] = {static_cast<npy_intp>(values.size()) / columns, columns};
    PyObject* table = PyArray_SimpleNew(2, shape, NPY_INT64);
    if (table != nullptr && !values.empty()) {
        std::memcpy(PyArray_DATA(reinterpret_cast<PyArrayObject*>(table)), values.data(),
                    values.size() * sizeof(std::int64_t));
    }
    return table;
}

}  // namespace ndarena::numpy
