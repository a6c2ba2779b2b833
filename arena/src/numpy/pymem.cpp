// Python's allocators as resources, and resources as allocators of Python.
#include "numpy/chain_memory.hpp"

namespace ndarena::numpy {
namespace {

using resources::counters;

// Python's own, whatever they are at the moment: tracemalloc and debug hooks may
// be put before them at any time.
template <void* (*allocate)(std::size_t), void* (*clear)(std::size_t, std::size_t),
          void* (*resize)(void*, std::size_t), void (*release)(void*)>
PyMemAllocatorEx table_of() noexcept {
    return {nullptr, [](void*, std::size_t nbytes) { return allocate(nbytes); },
            [](void*, std::size_t count, std::size_t size) { return clear(count, size); },
            [](void*, void* p, std::size_t nbytes) { return resize(p, nbytes); },
            [](void*, void* p) { release(p); }};
}

// The GIL for one call, if it is wanted and not there.
class gil_scope {
public:
    explicit gil_scope(bool wanted) noexcept : taken_(wanted && PyGILState_Check() == 0) {
        if (taken_) {
            state_ = PyGILState_Ensure();
        }
    }
    ~gil_scope() {
        if (taken_) {
            PyGILState_Release(state_);
        }
    }
    gil_scope(const gil_scope&) = delete;
    gil_scope& operator=(const gil_scope&) = delete;

private:
    bool taken_;
    PyGILState_STATE state_{};
};

class pymem_resource final : public resources::unaligned_resource {
public:
    pymem_resource(const PyMemAllocatorEx& to, bool needs_gil, PyObject* owner,
                   std::shared_ptr<counters> counts) noexcept
        : unaligned_resource(std::move(counts)), to_(to), needs_gil_(needs_gil), owner_(owner) {
        Py_XINCREF(owner_);
    }
    ~pymem_resource() override { Py_XDECREF(owner_); }  // with the GIL
    pymem_resource(const pymem_resource&) = delete;
    pymem_resource& operator=(const pymem_resource&) = delete;

private:
    void* plain_allocate(std::size_t nbytes, bool zero) noexcept override {
        const gil_scope here(needs_gil_);
        return zero ? to_.calloc(to_.ctx, 1, nbytes) : to_.malloc(to_.ctx, nbytes);
    }
    void plain_deallocate(void* p, std::size_t /*nbytes*/) noexcept override {
        const gil_scope here(needs_gil_);
        to_.free(to_.ctx, p);
    }
    void* plain_reallocate(void* p, std::size_t /*old_bytes*/,
                           std::size_t nbytes) noexcept override {
        const gil_scope here(needs_gil_);
        return to_.realloc(to_.ctx, p, nbytes);
    }

    PyMemAllocatorEx to_;
    bool needs_gil_;
    PyObject* owner_;
};

// A resource for whoever wants a PyMemAllocatorEx.
struct pymem_state : chain_memory {
    PyMemAllocatorEx table{};
    PyObject* owner = nullptr;
    PyObject* previous = nullptr;

    static pymem_state& of(void* context) noexcept { return *static_cast<pymem_state*>(context); }
};

void destroy_pymem(PyObject* capsule) noexcept {
    with_error_set_aside([capsule] {
        auto* table =
            static_cast<PyMemAllocatorEx*>(PyCapsule_GetPointer(capsule, pymem_capsule_name));
        if (table == nullptr) {
            PyErr_Clear();
            return;
        }
        pymem_state& state = pymem_state::of(table->ctx);
        PyObject* owner = state.owner;
        PyObject* previous = state.previous;
        delete &state;
        Py_XDECREF(previous);
        Py_XDECREF(owner);
    });
}

}  // namespace

resources::resource_ptr wrap_pymem_domain(char domain, std::shared_ptr<counters> counts) {
    const PyMemAllocatorEx to =
        domain == 'r'
            ? table_of<&PyMem_RawMalloc, &PyMem_RawCalloc, &PyMem_RawRealloc, &PyMem_RawFree>()
        : domain == 'm'
            ? table_of<&PyMem_Malloc, &PyMem_Calloc, &PyMem_Realloc, &PyMem_Free>()
            : table_of<&PyObject_Malloc, &PyObject_Calloc, &PyObject_Realloc, &PyObject_Free>();
    return std::make_shared<pymem_resource>(to, domain != 'r', nullptr, std::move(counts));
}

resources::resource_ptr wrap_pymem_table(const void* table, bool needs_gil, PyObject* owner,
                                         std::shared_ptr<counters> counts) {
    return std::make_shared<pymem_resource>(*static_cast<const PyMemAllocatorEx*>(table), needs_gil,
                                            owner, std::move(counts));
}

PyObject* make_pymem(resources::resource_ptr top, PyObject* owner, PyObject* previous) {
    auto state = std::make_unique<pymem_state>();
    state->top = std::move(top);
    state->table = {
        state.get(),
        [](void* c, std::size_t nbytes) { return pymem_state::of(c).allocate(nbytes, false); },
        [](void* c, std::size_t count, std::size_t size) -> void* {
            return base::mul_overflows(count, size)
                       ? nullptr
                       : pymem_state::of(c).allocate(count * size, true);
        },
        [](void* c, void* p, std::size_t nbytes) {
            return pymem_state::of(c).reallocate(p, nbytes);
        },
        [](void* c, void* p) { (void)pymem_state::of(c).deallocate(p); }};
    PyObject* capsule = PyCapsule_New(&state->table, pymem_capsule_name, &destroy_pymem);
    if (capsule == nullptr) {
        return nullptr;
    }
    Py_INCREF(owner);
    Py_XINCREF(previous);
    state->owner = owner;
    state->previous = previous;
    (void)state.release();
    return capsule;
}

}  // namespace ndarena::numpy
