// Allocators of many kinds as NumPy's, each as a "mem_handler" capsule.
#include "counting.hpp"

#include <numpy/arrayobject.h>
#include <ndarena/numpy.hpp>

#include <memory_resource>
#include <vector>

#if __has_include(<boost/interprocess/managed_heap_memory.hpp>)
#include <boost/interprocess/managed_heap_memory.hpp>
#define HAVE_BOOST 1
#else
#define HAVE_BOOST 0
#endif

PyObject* fork_while_busy(PyObject* self, PyObject* arguments);  // fork.cpp

namespace {

using ndarena::numpy_handler_from_cpp_allocator;

// Kept here to be looked at; by number.
std::vector<std::shared_ptr<ledger>>& ledgers() {
    static std::vector<std::shared_ptr<ledger>> all;
    return all;
}

// (capsule, number of the ledger)
PyObject* with_number(PyObject* capsule) {
    return capsule == nullptr ? nullptr : Py_BuildValue("Nn", capsule, ledgers().size() - 1);
}
std::shared_ptr<ledger> new_ledger() { return ledgers().emplace_back(std::make_shared<ledger>()); }

PyObject* standard(PyObject* /*self*/, PyObject* arguments) {
    const char* name = nullptr;
    return PyArg_ParseTuple(arguments, "z", &name) == 0
               ? nullptr
               : numpy_handler_from_cpp_allocator(name, std::allocator<double>());
}

PyObject* counting(PyObject* /*self*/, PyObject* /*unused*/) {
    return with_number(numpy_handler_from_cpp_allocator(
        "counting", counting_allocator<std::string>(new_ledger())));
}

// A resource over a ledger, which nobody else holds.
class counting_resource final : public std::pmr::memory_resource {
public:
    explicit counting_resource(std::shared_ptr<ledger> l) : ledger_(std::move(l)) {}

private:
    void* do_allocate(std::size_t nbytes, std::size_t alignment) override {
        return take(*ledger_, nbytes, alignment);
    }
    void do_deallocate(void* p, std::size_t nbytes, std::size_t /*alignment*/) override {
        give_back(*ledger_, p, nbytes);
    }
    bool do_is_equal(const memory_resource& other) const noexcept override {
        return this == &other;
    }
    std::shared_ptr<ledger> ledger_;
};

PyObject* resource(PyObject* /*self*/, PyObject* /*unused*/) {
    return with_number(numpy_handler_from_cpp_allocator(
        "resource", std::make_shared<counting_resource>(new_ledger())));
}

// A resource with its upstream, as the owner of one of them.
template <class Resource>
struct over_counting {
    explicit over_counting(std::shared_ptr<ledger> l) : upstream(std::move(l)), on_top(&upstream) {}
    counting_resource upstream;
    Resource on_top;
};
template <class Resource>
PyObject* owned(const char* name) {
    auto both = std::make_shared<over_counting<Resource>>(new_ledger());
    std::pmr::memory_resource* top = &both->on_top;
    return with_number(numpy_handler_from_cpp_allocator(name, top, std::move(both)));
}
PyObject* pool(PyObject* /*self*/, PyObject* /*unused*/) {
    return owned<std::pmr::synchronized_pool_resource>("pool");
}
PyObject* unsynchronized(PyObject* /*self*/, PyObject* /*unused*/) {
    return owned<std::pmr::unsynchronized_pool_resource>("unsynchronized");
}
PyObject* monotonic(PyObject* /*self*/, PyObject* /*unused*/) {
    return owned<std::pmr::monotonic_buffer_resource>("monotonic");
}
// Its owner calls something when it is let go of.
PyObject* farewell(PyObject* /*self*/, PyObject* callable) {
    Py_INCREF(callable);
    std::shared_ptr<void> owner(callable, [](void* p) {
        auto* call = static_cast<PyObject*>(p);
        PyObject* result = PyObject_CallObject(call, nullptr);
        if (result == nullptr) {
            PyErr_WriteUnraisable(call);
        }
        Py_XDECREF(result);
        Py_DECREF(call);
    });
    return numpy_handler_from_cpp_allocator("farewell", std::pmr::new_delete_resource(),
                                            std::move(owner));
}
PyObject* polymorphic(PyObject* /*self*/, PyObject* /*unused*/) {
    return numpy_handler_from_cpp_allocator("polymorphic", std::pmr::polymorphic_allocator<int>());
}

PyObject* no_resource(PyObject* /*self*/, PyObject* /*unused*/) {
    return numpy_handler_from_cpp_allocator("none", std::shared_ptr<std::pmr::memory_resource>());
}
PyObject* unlucky(PyObject* /*self*/, PyObject* arguments) {
    const char* kind = nullptr;
    if (PyArg_ParseTuple(arguments, "s", &kind) == 0) {
        return nullptr;
    }
    switch (*kind) {
        case 'm':
            return numpy_handler_from_cpp_allocator("x", unlucky_allocator<int, std::bad_alloc>());
        case 'r':
            return numpy_handler_from_cpp_allocator("x", unlucky_allocator<int, accident>());
        default:
            return numpy_handler_from_cpp_allocator("x", unlucky_allocator<int, int>());
    }
}

#if HAVE_BOOST
namespace bi = boost::interprocess;

// In a segment of Boost.Interprocess, with its pointers that work at every address.
template <class T>
struct segment_allocator {
    using value_type = T;
    using pointer = bi::offset_ptr<T>;

    explicit segment_allocator(std::shared_ptr<bi::managed_heap_memory> s)
        : segment(std::move(s)) {}
    template <class U>
    segment_allocator(const segment_allocator<U>& other) : segment(other.segment) {}

    pointer allocate(std::size_t n) {
        return pointer(static_cast<T*>(segment->allocate_aligned(n * sizeof(T), alignof(T))));
    }
    void deallocate(const pointer& p, std::size_t /*n*/) { segment->deallocate(p.get()); }

    std::shared_ptr<bi::managed_heap_memory> segment;
};

std::shared_ptr<bi::managed_heap_memory>& the_segment() {
    static auto s = std::make_shared<bi::managed_heap_memory>(std::size_t{8} << 20);
    return s;
}
PyObject* fancy(PyObject* /*self*/, PyObject* /*unused*/) {
    return numpy_handler_from_cpp_allocator("fancy", segment_allocator<char>(the_segment()));
}
// (bytes in use, sound, address, size)
PyObject* segment(PyObject* /*self*/, PyObject* /*unused*/) {
    auto& s = *the_segment();
    return Py_BuildValue(
        "nOKn", s.get_size() - s.get_free_memory(), s.check_sanity() ? Py_True : Py_False,
        static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(s.get_address())),
        s.get_size());
}
#endif

// (live blocks, live bytes, allocated so far, mistakes, others that hold it)
PyObject* look(PyObject* /*self*/, PyObject* arguments) {
    Py_ssize_t number = 0;
    if (PyArg_ParseTuple(arguments, "n", &number) == 0) {
        return nullptr;
    }
    const auto& l = ledgers().at(static_cast<std::size_t>(number));
    std::size_t nbytes = 0;
    for (const auto& [p, n] : l->live) {
        nbytes += n;
    }
    return Py_BuildValue("nnlll", l->live.size(), nbytes, l->n_allocated, l->n_wrong,
                         l.use_count() - 1);
}
PyObject* order(PyObject* /*self*/, PyObject* arguments) {
    Py_ssize_t number = 0;
    int now = 0;
    Py_ssize_t most = 0;
    if (PyArg_ParseTuple(arguments,
                         "n"
                         "in",
                         &number, &now, &most) == 0) {
        return nullptr;
    }
    auto& l = *ledgers().at(static_cast<std::size_t>(number));
    l.now = static_cast<mood>(now);
    l.most = static_cast<std::size_t>(most);
    Py_RETURN_NONE;
}

// Makes a capsule current; the one that was.
PyObject* use(PyObject* /*self*/, PyObject* capsule) { return PyDataMem_SetHandler(capsule); }

PyMethodDef methods[] = {
    {"standard", &standard, METH_VARARGS, nullptr},
    {"counting", &counting, METH_NOARGS, nullptr},
    {"resource", &resource, METH_NOARGS, nullptr},
    {"pool", &pool, METH_NOARGS, nullptr},
    {"unsynchronized", &unsynchronized, METH_NOARGS, nullptr},
    {"monotonic", &monotonic, METH_NOARGS, nullptr},
    {"farewell", &farewell, METH_O, nullptr},
    {"polymorphic", &polymorphic, METH_NOARGS, nullptr},
    {"no_resource", &no_resource, METH_NOARGS, nullptr},
    {"unlucky", &unlucky, METH_VARARGS, nullptr},
#if HAVE_BOOST
    {"fancy", &fancy, METH_NOARGS, nullptr},
    {"segment", &segment, METH_NOARGS, nullptr},
#endif
    {"look", &look, METH_VARARGS, nullptr},
    {"order", &order, METH_VARARGS, nullptr},
    {"use", &use, METH_O, nullptr},
    {"fork_while_busy", &fork_while_busy, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT,
                          "cpp_allocators",
                          nullptr,
                          -1,
                          methods,
                          nullptr,
                          nullptr,
                          nullptr,
                          nullptr};

}  // namespace

PyMODINIT_FUNC PyInit_cpp_allocators() {
    import_array();
    return PyModule_Create(&definition);
}
