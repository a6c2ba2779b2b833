// Resources and adaptors as opaque objects that Python composes into chains.
#include "errors.hpp"
#include "py_arena.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace ndarena::module {
namespace {

using resources::counters;
using resources::limit;
using resources::resource;
using resources::resource_ptr;

using counters_ptr = std::shared_ptr<counters>;

// The error of a locked adaptor's last refusal by the system.
struct lock_failure {
    std::shared_ptr<std::atomic<int>> last_errno = std::make_shared<std::atomic<int>>(0);
};

template <class Adaptor, class... Arguments>
resource_ptr make(Arguments... arguments) {
    return std::make_shared<Adaptor>(std::move(arguments)...);
}

py::dict read(const counters& c) {
    const auto value = [](const std::atomic<std::uint64_t>& counter) {
        return py::int_(counter.load(std::memory_order_relaxed));
    };
    // Deallocations first: between two reads nothing lives less than not at all.
    py::dict d;
    d["n_deallocations"] = value(c.n_deallocations);
    d["n_allocations"] = value(c.n_allocations);
    d["allocated"] = value(c.allocated);
    d["peak_allocated"] = value(c.peak_allocated);
    d["n_failed"] = value(c.n_failed);
    return d;
}

resource_ptr non_null(resource_ptr made) {
    if (made == nullptr) {
        throw py::error_already_set();
    }
    return made;
}

PyObject* null_or(const py::object& object) { return object.is_none() ? nullptr : object.ptr(); }

void register_states(py::module_& m) {
    py::class_<counters, counters_ptr>(m, "Counters").def(py::init<>()).def("read", &read);
    py::class_<limit, std::shared_ptr<limit>>(m, "Limit")
        .def(py::init<std::uint64_t>(), py::arg("max_bytes"))
        .def_property_readonly("used", [](const limit& l) { return l.used.load(); });
    py::class_<lock_failure>(m, "LockFailure")
        .def(py::init<>())
        .def_property_readonly("last_errno",
                               [](const lock_failure& f) { return f.last_errno->load(); });
}

}  // namespace

void register_resources(py::module_& m) {
    register_states(m);
    const py::class_<resource, resource_ptr> opaque(m, "Resource");
    m.def(
        "wrap_handler",
        [](const py::object& capsule, counters_ptr counts) {
            return non_null(numpy::wrap_handler(capsule.ptr(), std::move(counts)));
        },
        py::arg("capsule"), py::arg("counters").none(true));
    m.def(
        "wrap_default",
        [](counters_ptr counts) { return non_null(numpy::wrap_default(std::move(counts))); },
        py::arg("counters"));
    m.def(
        "wrap_arena",
        [](const py_arena& arena, counters_ptr counts) -> resource_ptr {
            auto held = arena.lease();
            heap::heap& of = held->heap();
            return std::make_shared<resources::arena_resource>(
                of, std::move(held), arena.closed_flag(), std::move(counts));
        },
        py::arg("arena"), py::arg("counters").none(true));
    m.def(
        "wrap_functions",
        [](std::uintptr_t malloc, std::uintptr_t free, std::uintptr_t calloc,
           std::uintptr_t realloc, std::uintptr_t aligned_alloc, counters_ptr counts) {
            const resources::functions to{
                reinterpret_cast<void* (*)(std::size_t)>(malloc),
                reinterpret_cast<void (*)(void*)>(free),
                reinterpret_cast<void* (*)(std::size_t, std::size_t)>(calloc),
                reinterpret_cast<void* (*)(void*, std::size_t)>(realloc),
                reinterpret_cast<void* (*)(std::size_t, std::size_t)>(aligned_alloc)};
            return make<resources::function_resource>(to, std::move(counts));
        },
        py::arg("malloc"), py::arg("free"), py::arg("calloc"), py::arg("realloc"),
        py::arg("aligned_alloc"), py::arg("counters"));
    m.def(
        "wrap_callables",
        [](const py::object& malloc, const py::object& free, const py::object& calloc,
           const py::object& realloc, const py::capsule& handler, bool free_with_size,
           counters_ptr counts) {
            return numpy::wrap_callables({malloc.ptr(), free.ptr(), null_or(calloc),
                                          null_or(realloc), handler.ptr(), free_with_size},
                                         std::move(counts));
        },
        py::arg("malloc"), py::arg("free"), py::arg("calloc"), py::arg("realloc"),
        py::arg("handler"), py::arg("free_with_size"), py::arg("counters"));
    m.def("statistics_adaptor", &make<resources::statistics_adaptor, resource_ptr, counters_ptr>,
          py::arg("upstream"), py::arg("counters"));
    m.def("aligned_adaptor",
          &make<resources::aligned_adaptor, std::size_t, resource_ptr, counters_ptr>,
          py::arg("alignment"), py::arg("upstream"), py::arg("counters"));
    m.def(
        "threshold_adaptor",
        &make<resources::threshold_adaptor, std::size_t, resource_ptr, resource_ptr, counters_ptr>,
        py::arg("min_size"), py::arg("large"), py::arg("small"), py::arg("counters").none(true));
    m.def("fallback_adaptor",
          &make<resources::fallback_adaptor, resource_ptr, resource_ptr, counters_ptr>,
          py::arg("first"), py::arg("then"), py::arg("counters").none(true));
    m.def("limiting_adaptor",
          &make<resources::limiting_adaptor, std::shared_ptr<limit>, resource_ptr, counters_ptr>,
          py::arg("limit"), py::arg("upstream"), py::arg("counters"));
    m.def(
        "locked_adaptor",
        [](const lock_failure& failure, resource_ptr upstream, counters_ptr counts) {
            return make<resources::locked_adaptor>(failure.last_errno, std::move(upstream),
                                                   std::move(counts));
        },
        py::arg("failure"), py::arg("upstream"), py::arg("counters"));
    m.def(
        "make_chain",
        [](const resource_ptr& top, const py::object& owner, const py::object& previous,
           const std::string& name) {
            return steal_or_throw(numpy::make_chain(top, owner.ptr(), null_or(previous), name));
        },
        py::arg("top"), py::arg("owner"), py::arg("previous"), py::arg("name"));
    m.def(
        "install_chain",
        [](const resource_ptr& top, const py::object& owner, const py::object& previous) {
            if (!numpy::install_chain(top, owner.ptr(), null_or(previous))) {
                throw py::error_already_set();
            }
        },
        py::arg("top"), py::arg("owner"), py::arg("previous"));
    m.def(
        "wrap_pymem_domain",
        [](char domain, counters_ptr counts) {
            return numpy::wrap_pymem_domain(domain, std::move(counts));
        },
        py::arg("domain"), py::arg("counters"));
    m.def(
        "wrap_pymem_table",
        [](std::uintptr_t table, bool needs_gil, const py::object& owner, counters_ptr counts) {
            return numpy::wrap_pymem_table(reinterpret_cast<const void*>(table), needs_gil,
                                           null_or(owner), std::move(counts));
        },
        py::arg("table"), py::arg("needs_gil"), py::arg("owner"), py::arg("counters"));
    m.def(
        "make_pymem",
        [](const resource_ptr& top, const py::object& owner, const py::object& previous) {
            return steal_or_throw(numpy::make_pymem(top, owner.ptr(), null_or(previous)));
        },
        py::arg("top"), py::arg("owner"), py::arg("previous"));
    m.def(
        "previous_handler",
        [](const py::object& owner) {
            return steal_or_throw(numpy::previous_handler(owner.ptr()));
        },
        py::arg("owner"));
    m.def(
        "owner_of_chain",
        [](const py::object& capsule) -> py::object {
            PyObject* owner = numpy::owner_of_chain(capsule.ptr());
            return owner == nullptr ? py::object(py::none())
                                    : py::reinterpret_borrow<py::object>(owner);
        },
        py::arg("capsule"));
    m.def(
        "name_of_handler",
        [](const py::object& capsule) {
            std::string name = numpy::name_of_handler(capsule.ptr());
            if (PyErr_Occurred() != nullptr) {
                PyErr_Clear();
                throw py::value_error("a memory handler is a capsule named 'mem_handler'");
            }
            return name;
        },
        py::arg("capsule"));
}

}  // namespace ndarena::module
