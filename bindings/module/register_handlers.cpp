// Handlers: the current one, the process-wide one, and whose memory an array is.
#include "errors.hpp"
#include "py_arena.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace ndarena::module {
namespace {

// The arena that `install` was last given, while it is installed. Never
// destroyed. The mutex guards the pointer; that it follows what NumPy is
// pointed at is up to the caller, who lets one thread at a time (un)install.
struct installation {
    platform::mutex mutex;
    std::shared_ptr<py_arena> arena;
};

installation& the_installation() {
    static auto* i = new installation;
    return *i;
}

std::shared_ptr<py_arena> exchange_installed(std::shared_ptr<py_arena> arena) {
    installation& i = the_installation();
    platform::lock_guard guard(i.mutex);
    i.arena.swap(arena);
    return arena;
}

void require_array(const py::object& array) {
    if (!numpy::is_array(array.ptr())) {
        raise({errc::invalid, 0, "not a NumPy array", {}});
    }
}

}  // namespace

void register_handlers(py::module_& m) {
    m.def("get_handler", [] { return steal_or_throw(numpy::current_handler()); });
    m.def(
        "set_handler",
        [](const py::object& capsule) {
            return steal_or_throw(
                numpy::exchange_handler(capsule.is_none() ? nullptr : capsule.ptr()));
        },
        py::arg("capsule"));
    m.def(
        "handler_name",
        [](const py::object& array) -> py::object {
            require_array(array);
            const std::string name = numpy::handler_name(array.ptr());
            if (name.empty()) {
                return py::none();
            }
            return py::str(name);
        },
        py::arg("array"));
    m.def(
        "owner_of_array",
        [](const py::object& array) -> py::object {
            require_array(array);
            PyObject* owner = numpy::owner_of_array(array.ptr());
            return owner == nullptr ? py::object(py::none())
                                    : py::reinterpret_borrow<py::object>(owner);
        },
        py::arg("array"));
    m.def(
        "arena_of_handler",
        [](const py::object& capsule) -> py::object {
            numpy::handler_options options;
            const void* address = numpy::arena_of_handler(capsule.ptr(), options);
            if (address == nullptr) {
                return py::none();
            }
            return py::make_tuple(py_arena::find(address), options.min_size, options.fallback);
        },
        py::arg("capsule"));
    m.def(
        "find_arena",
        [](const py::object& array) {
            require_array(array);
            return py_arena::find(numpy::data_of(array.ptr()));
        },
        py::arg("array"));
    m.def(
        "install",
        [](const std::shared_ptr<py_arena>& arena, std::uint64_t min_size, bool fallback) {
            if (!numpy::install(arena->lease(), arena->closed_flag(), {min_size, fallback})) {
                throw py::error_already_set();
            }
            (void)exchange_installed(arena);
        },
        py::arg("arena"), py::arg("min_size"), py::arg("fallback"));
    m.def("uninstall", [] {
        numpy::uninstall();
        (void)exchange_installed(nullptr);
        numpy::forget_retired();
    });
    m.def("installed", [] {
        installation& i = the_installation();
        platform::lock_guard guard(i.mutex);
        return i.arena;
    });
    m.def("handler_live_capsules", [] { return numpy::live_handlers(); });
}

}  // namespace ndarena::module
