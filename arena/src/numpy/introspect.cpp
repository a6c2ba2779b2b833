// Looking at arrays.
#include "numpy/target.hpp"

namespace ndarena::numpy {

namespace {

// Views have no handler of their own: the array that owns the data; null if none does.
PyArrayObject* owning_array(PyObject* array) noexcept {
    PyObject* object = array;
    while (object != nullptr && PyArray_Check(object) != 0) {
        auto* a = reinterpret_cast<PyArrayObject*>(object);
        if (PyArray_HANDLER(a) != nullptr) {
            return a;
        }
        object = PyArray_BASE(a);
    }
    return nullptr;
}

}  // namespace

PyObject* owner_of_array(PyObject* array) noexcept {
    PyArrayObject* a = owning_array(array);
    if (a == nullptr) {
        return nullptr;
    }
    // Arrays made while a chain stands in for the default carry its capsule.
    return PyArray_HANDLER(a) == PyDataMem_DefaultHandler ? owner_of_installed(PyArray_DATA(a))
                                                          : owner_of_chain(PyArray_HANDLER(a));
}

std::string handler_name(PyObject* array) {
    PyArrayObject* a = owning_array(array);
    PyObject* capsule = a == nullptr ? nullptr : PyArray_HANDLER(a);
    const void* p = capsule == nullptr ? nullptr : PyCapsule_GetPointer(capsule, capsule_name);
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
