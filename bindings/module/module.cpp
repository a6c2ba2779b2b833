// The extension module: names what it consists of, nothing else.
#include "interrupts.hpp"
#include "register.hpp"

#include "numpy/numpy.hpp"

namespace py = pybind11;

namespace {

// NumPy is loaded once in a process, and so is this module.
constexpr const char* refusal = "ndarena can be used in the main interpreter only";

bool is_main_interpreter() noexcept {
    return PyInterpreterState_Get() == PyInterpreterState_Main();
}

}  // namespace

// pybind11's entry point, called by ours below.
#define PyInit__core ndarena_init_core  // NOLINT(bugprone-reserved-identifier)

#if PYBIND11_VERSION_HEX >= 0x03000000
// Own locking throughout.
PYBIND11_MODULE(_core, m, py::mod_gil_not_used(), py::multiple_interpreters::not_supported()) {
#elif PYBIND11_VERSION_HEX >= 0x020D0000
PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
#else
PYBIND11_MODULE(_core, m) {
#endif
    // Python 3.13 makes the module in the main interpreter and fills it in the other.
    if (!is_main_interpreter()) {
        throw py::import_error(refusal);
    }
    if (ndarena::numpy::import_numpy() != 0) {
        throw py::error_already_set();
    }
    ndarena::module::install_interrupts();
    ndarena::module::register_arena(m);
    ndarena::module::register_open(m);
    ndarena::module::register_handlers(m);
    ndarena::module::register_config(m);
    ndarena::module::register_blocks(m);
    ndarena::module::register_names(m);
    ndarena::module::register_resources(m);
    ndarena::module::register_stored(m);
    ndarena::module::register_tracing(m);
    ndarena::module::register_c_api(m);
}

#undef PyInit__core

// Asked before pybind11 is: up to Python 3.11 it would wait for ever for the
// main interpreter's lock.
// NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming): CPython asks for it
extern "C" PYBIND11_EXPORT PyObject* PyInit__core() {
    if (!is_main_interpreter()) {
        PyErr_SetString(PyExc_ImportError, refusal);
        return nullptr;
    }
    return ndarena_init_core();
}
