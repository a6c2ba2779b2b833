// The functions behind <ndarena/c_api.h>, and the capsule that they are found by.
#include "py_arena.hpp"
#include "register.hpp"

#include <ndarena/c_api.h>

#include <algorithm>

namespace py = pybind11;

// A chain, and the Python object that it was made of.
struct ndarena_resource {
    ndarena::resources::resource_ptr top;
    PyObject* owner = nullptr;
};

namespace ndarena::module {
namespace {

using resources::foreign_allocator;
using resources::least_alignment;

// What a body throws becomes a Python exception, and the result `failure`.
template <class Result, class Body>
Result raising(Result failure, Body&& body) noexcept {
    try {
        return body();
    } catch (py::error_already_set& e) {
        e.restore();
    } catch (const py::builtin_exception& e) {
        e.set_error();
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::exception& e) {
        PyErr_SetString(PyExc_RuntimeError, e.what());
    }
    return failure;
}

py::object package(const char* attribute) {
    return py::module_::import("ndarena._c_api").attr(attribute);
}

PyObject* resource_new(const char* name, const ndarena_functions* functions) noexcept {
    return raising<PyObject*>(nullptr, [name, functions] {
        if (functions == nullptr || functions->allocate == nullptr ||
            functions->deallocate == nullptr) {
            throw py::value_error("allocate and deallocate may not be null");
        }
        const ndarena_functions& f = *functions;
        auto made = std::make_shared<foreign_allocator>(resources::foreign_functions{
            f.context, f.allocate, f.deallocate, f.reallocate, f.destroy});
        py::object title = steal_or_throw(PyUnicode_FromString(name == nullptr ? "" : name));
        py::object object = package("ForeignResource")(title, made);
        made->take_over();
        return object.release().ptr();
    });
}

ndarena_resource* resource_bind(PyObject* object) noexcept {
    return raising<ndarena_resource*>(nullptr, [object] {
        const py::tuple bound = package("bind")(py::reinterpret_borrow<py::object>(object));
        auto made = std::make_unique<ndarena_resource>();
        made->top = bound[0].cast<resources::resource_ptr>();
        made->owner = py::object(bound[1]).release().ptr();
        return made.release();
    });
}

void resource_release(ndarena_resource* resource) noexcept {
    if (resource != nullptr) {
        const py::error_scope pending;
        PyObject* owner = resource->owner;
        delete resource;
        Py_XDECREF(owner);
    }
}

// Untrue if the request makes no sense.
bool normalize(std::size_t& nbytes, std::size_t& alignment) noexcept {
    nbytes = std::max<std::size_t>(nbytes, 1);
    alignment = std::max(alignment, least_alignment);
    return (alignment & (alignment - 1)) == 0;
}

void* allocate(ndarena_resource* resource, std::size_t nbytes, std::size_t alignment,
               int zero) noexcept {
    return normalize(nbytes, alignment) ? resource->top->allocate(nbytes, alignment, zero != 0)
                                        : nullptr;
}

void* reallocate(ndarena_resource* resource, void* p, std::size_t old_bytes, std::size_t nbytes,
                 std::size_t alignment) noexcept {
    if (p == nullptr) {
        return allocate(resource, nbytes, alignment, 0);
    }
    old_bytes = std::max<std::size_t>(old_bytes, 1);
    return normalize(nbytes, alignment) ? resource->top->reallocate(p, old_bytes, nbytes, alignment)
                                        : nullptr;
}

void deallocate(ndarena_resource* resource, void* p, std::size_t nbytes,
                std::size_t alignment) noexcept {
    if (p != nullptr && normalize(nbytes, alignment)) {
        resource->top->deallocate(p, nbytes, alignment);
    }
}

std::int64_t array_offset(PyObject* array, void** base) noexcept {
    void* unused = nullptr;
    void*& start = base == nullptr ? unused : *base;
    start = nullptr;
    return raising<std::int64_t>(-1, [array, &start]() -> std::int64_t {
        if (!numpy::is_array(array)) {
            throw py::type_error("array_offset() wants a numpy.ndarray");
        }
        const void* p = numpy::data_of(array);
        const auto held = numpy::lease::find(p);
        if (!held) {
            return -1;
        }
        start = held->heap().base();
        return static_cast<const std::byte*>(p) - static_cast<const std::byte*>(start);
    });
}

const ndarena_c_api the_api = {NDARENA_C_ABI_VERSION, sizeof(ndarena_c_api), &resource_new,
                               &resource_bind,        &resource_release,     &allocate,
                               &reallocate,           &deallocate,           &array_offset};

}  // namespace

void register_c_api(py::module_& m) {
    const py::class_<foreign_allocator, std::shared_ptr<foreign_allocator>> kept(
        m, "ForeignAllocator");
    m.def(
        "wrap_foreign",
        [](const std::shared_ptr<foreign_allocator>& from,
           std::shared_ptr<resources::counters> counts) -> resources::resource_ptr {
            return std::make_shared<resources::foreign_resource>(from, std::move(counts));
        },
        py::arg("allocator"), py::arg("counters"));
    m.attr("_C_API") = py::capsule(&the_api, "ndarena._C_API");
}

}  // namespace ndarena::module
