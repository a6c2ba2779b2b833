// Handlers as capsules: one for every activation.
#include "numpy/target.hpp"

#include <cstdio>

namespace ndarena::numpy {
namespace {

// What a capsule owns. Members are destroyed in reverse: the lease last, after
// nothing can call into the heap any more.
struct handler_state {
    PyDataMem_Handler handler{};
    std::shared_ptr<lease> held;
    closed_flag closed;
    PyObject* upstream_capsule = nullptr;
    target to;

    void* allocate(std::size_t nbytes, bool zero) noexcept { return to.allocate(nbytes, zero); }
    void* reallocate(void* p, std::size_t nbytes) noexcept { return to.reallocate(p, nbytes); }
    void free(void* p, std::size_t nbytes) noexcept { to.free(p, nbytes); }
};

// Marks our capsules; its address is what counts.
int capsule_mark = 0;
std::atomic<std::int64_t> handlers_alive{0};

handler_state* state_of(PyObject* capsule) noexcept {
    if (PyCapsule_GetContext(capsule) != &capsule_mark) {
        PyErr_Clear();
        return nullptr;
    }
    auto* handler = static_cast<PyDataMem_Handler*>(PyCapsule_GetPointer(capsule, capsule_name));
    return handler == nullptr ? nullptr : static_cast<handler_state*>(handler->allocator.ctx);
}

// Runs when the last array, context and variable have let go, possibly with an
// exception pending, possibly while the interpreter exits.
void destroy_capsule(PyObject* capsule) noexcept {
    with_error_set_aside([capsule] {
        if (handler_state* state = state_of(capsule)) {
            PyObject* upstream = state->upstream_capsule;
            delete state;
            handlers_alive.fetch_sub(1, std::memory_order_relaxed);
            Py_XDECREF(upstream);
        }
    });
}

// The nearest current handler that does not lead to the same heap.
PyObject* find_upstream(const heap::heap* own) {
    PyObject* capsule = PyDataMem_GetHandler();
    while (capsule != nullptr) {
        const handler_state* state = state_of(capsule);
        if (state == nullptr || state->to.heap != own) {
            break;
        }
        PyObject* next = state->upstream_capsule;
        if (next == nullptr) {
            next = PyDataMem_DefaultHandler;
        }
        Py_INCREF(next);
        Py_DECREF(capsule);
        capsule = next;
    }
    return capsule;
}

}  // namespace

PyObject* make_handler(std::shared_ptr<lease> held, closed_flag closed,
                       const handler_options& options) {
    auto state = std::make_unique<handler_state>();
    state->to.heap = &held->heap();
    state->held = std::move(held);
    state->closed = std::move(closed);
    state->to.closed = state->closed.get();
    state->to.min_size = options.min_size;
    state->to.fallback = options.fallback;
    std::snprintf(state->handler.name, sizeof state->handler.name, "%s", handler_title);
    state->handler.version = 1;
    state->handler.allocator = callbacks<handler_state>::table(state.get());
    if (options.min_size != 0 || options.fallback) {
        PyObject* upstream = find_upstream(state->to.heap);
        if (upstream == nullptr) {
            return nullptr;
        }
        state->upstream_capsule = upstream;
        state->to.upstream =
            static_cast<PyDataMem_Handler*>(PyCapsule_GetPointer(upstream, capsule_name));
        if (state->to.upstream == nullptr) {
            Py_DECREF(upstream);
            return nullptr;
        }
    }
    PyObject* capsule = PyCapsule_New(&state->handler, capsule_name, &destroy_capsule);
    if (capsule == nullptr) {
        Py_XDECREF(state->upstream_capsule);
        return nullptr;
    }
    if (PyCapsule_SetContext(capsule, &capsule_mark) != 0) {
        Py_DECREF(capsule);
        Py_XDECREF(state->upstream_capsule);
        return nullptr;
    }
    handlers_alive.fetch_add(1, std::memory_order_relaxed);
    (void)state.release();
    return capsule;
}

const void* arena_of_handler(PyObject* capsule, handler_options& options) noexcept {
    const handler_state* state = state_of(capsule);
    if (state == nullptr) {
        return nullptr;
    }
    options = {state->to.min_size, state->to.fallback};
    return state->to.heap->seg().base();
}

std::int64_t live_handlers() noexcept { return handlers_alive.load(std::memory_order_relaxed); }

PyObject* current_handler() { return PyDataMem_GetHandler(); }

PyObject* exchange_handler(PyObject* capsule) {
    // NumPy leaks a reference to the current handler on a wrong capsule: ask
    // before it does.
    if (capsule != nullptr && PyCapsule_IsValid(capsule, capsule_name) == 0) {
        PyErr_SetString(PyExc_ValueError, "a memory handler is a capsule named 'mem_handler'");
        return nullptr;
    }
    return PyDataMem_SetHandler(capsule);
}

}  // namespace ndarena::numpy
