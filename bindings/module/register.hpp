// What each file of the module registers.
#pragma once

#include <pybind11/pybind11.h>

namespace ndarena::module {

void register_arena(pybind11::module_& m);
void register_open(pybind11::module_& m);
void register_handlers(pybind11::module_& m);
void register_config(pybind11::module_& m);
void register_blocks(pybind11::module_& m);

}  // namespace ndarena::module
