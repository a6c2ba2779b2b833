#include "errors.hpp"

#include <pybind11/pybind11.h>

namespace py = pybind11;

namespace ndarena::module {
namespace {

const char* code_name(errc code) noexcept {
    switch (code) {
        case errc::format:
            return "format";
        case errc::corruption:
            return "corruption";
        case errc::closed:
            return "closed";
        case errc::lock_timeout:
            return "lock_timeout";
        case errc::read_only:
            return "read_only";
        case errc::not_found:
            return "not_found";
        case errc::exists:
            return "exists";
        case errc::permission:
            return "permission";
        case errc::no_memory:
            return "no_memory";
        case errc::invalid:
            return "invalid";
        case errc::unsupported:
            return "unsupported";
        case errc::stale:
            return "stale_ref";
        case errc::ok:
        case errc::os:
            break;
    }
    return "os";
}

}  // namespace

void raise(const error& e) {
    py::object path = py::none();
    if (!e.path.empty()) {
        // Paths are bytes to the system; Python has its own way to show them.
        path = py::reinterpret_steal<py::object>(PyUnicode_DecodeFSDefaultAndSize(
            e.path.data(), static_cast<Py_ssize_t>(e.path.size())));
        if (!path) {
            throw py::error_already_set();
        }
    }
    py::module_::import("ndarena.errors")
        .attr("_raise")(code_name(e.code), e.os_errno, e.message, path);
    throw py::error_already_set();  // not reached: _raise always raises
}

}  // namespace ndarena::module
