// The extension module: names what it consists of, nothing else.
#include "interrupts.hpp"
#include "register.hpp"

#include "numpy/numpy.hpp"

namespace py = pybind11;

#if PYBIND11_VERSION_HEX >= 0x03000000
// Own locking throughout; NumPy itself refuses a second interpreter.
PYBIND11_MODULE(_core, m, py::mod_gil_not_used(), py::multiple_interpreters::not_supported()) {
#elif PYBIND11_VERSION_HEX >= 0x020D0000
PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
#else
PYBIND11_MODULE(_core, m) {
#endif
    if (ndarena::numpy::import_numpy() != 0) {
        throw py::error_already_set();
    }
    ndarena::module::install_interrupts();
    ndarena::module::register_arena(m);
    ndarena::module::register_open(m);
    ndarena::module::register_handlers(m);
    ndarena::module::register_config(m);
    ndarena::module::register_blocks(m);
}
