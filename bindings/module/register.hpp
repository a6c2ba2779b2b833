// What each file of the module registers.
#pragma once

#include <pybind11/pybind11.h>

namespace ndarena::module {

// The result of a C function that may have raised.
inline pybind11::object steal_or_throw(PyObject* object) {
    if (object == nullptr) {
        throw pybind11::error_already_set();
    }
    return pybind11::reinterpret_steal<pybind11::object>(object);
}

void register_arena(pybind11::module_& m);
void register_open(pybind11::module_& m);
void register_handlers(pybind11::module_& m);
void register_names(pybind11::module_& m);
void register_c_api(pybind11::module_& m);
void register_config(pybind11::module_& m);
void register_blocks(pybind11::module_& m);
void register_resources(pybind11::module_& m);
void register_stored(pybind11::module_& m);
void register_tracing(pybind11::module_& m);

}  // namespace ndarena::module
