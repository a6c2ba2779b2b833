// What the callbacks of every handler do with a heap and an upstream;
// private to this layer.
#pragma once

#include "numpy/api.hpp"

#include "numpy/numpy.hpp"

#include <cstring>

namespace ndarena::numpy {

// Handlers of others may expect the GIL, with which NumPy calls them but for realloc:
// NumPy's own keeps lists of small blocks under it, and lets go of it to clear. Taken
// here if this thread has not got it; once the interpreter has ended there is none.
class gil_for_others {
public:
    gil_for_others() noexcept : taken_(PyGILState_Check() == 0 && Py_IsInitialized() != 0) {
        if (taken_) {
            state_ = PyGILState_Ensure();
        }
    }
    ~gil_for_others() {
        if (taken_) {
            PyGILState_Release(state_);
        }
    }
    gil_for_others(const gil_for_others&) = delete;
    gil_for_others& operator=(const gil_for_others&) = delete;

private:
    bool taken_;
    PyGILState_STATE state_{};
};

// A heap with the handler behind it. `upstream` may be null if it is never
// needed: no minimum size and no fallback.
struct target {
    heap::heap* heap = nullptr;
    const std::atomic<bool>* closed = nullptr;
    const PyDataMem_Handler* upstream = nullptr;
    std::uint64_t min_size = 0;
    bool fallback = false;

    void* allocate(std::size_t nbytes, bool zero) const noexcept {
        if (nbytes < min_size) {
            return allocate_upstream(nbytes, zero);
        }
        void* p = nullptr;
        if (!closed->load(std::memory_order_relaxed)) {
            p = heap->allocate(nbytes, 0, zero);
        }
        return p == nullptr && fallback ? allocate_upstream(nbytes, zero) : p;
    }

    // Memory stays with whoever gave it, except when the arena is full: there
    // its size is known, so it can move upstream.
    void* reallocate(void* p, std::size_t nbytes) const noexcept {
        if (p == nullptr) {
            return allocate(nbytes, false);
        }
        if (!heap->contains(p)) {
            return upstream->allocator.realloc(upstream->allocator.ctx, p, nbytes);
        }
        // A closed arena gives nothing new: what is to grow goes upstream.
        const bool may_grow = !closed->load(std::memory_order_relaxed);
        void* q = may_grow || nbytes <= heap->size_of(p) ? heap->reallocate(p, nbytes) : nullptr;
        if (q == nullptr && fallback) {
            const std::size_t old = heap->size_of(p);
            const gil_for_others held;
            q = old == 0 ? nullptr : allocate_upstream(nbytes, false);
            if (q != nullptr) {
                std::memcpy(q, p, old < nbytes ? old : nbytes);
                heap->deallocate(p);
            }
        }
        return q;
    }

    void free(void* p, std::size_t nbytes) const noexcept {
        if (p == nullptr) {
            return;  // NumPy does this routinely
        }
        if (!heap->deallocate(p) && !heap->contains(p) && upstream != nullptr) {
            upstream->allocator.free(upstream->allocator.ctx, p, nbytes);
        }
    }

    void* allocate_upstream(std::size_t nbytes, bool zero) const noexcept {
        if (upstream == nullptr) {
            return nullptr;
        }
        const PyDataMemAllocator& a = upstream->allocator;
        return zero ? a.calloc(a.ctx, nbytes, 1) : a.malloc(a.ctx, nbytes);
    }
};

// The four callbacks over a context of type State with a `target` accessor.
template <class State>
struct callbacks {
    static void* malloc(void* ctx, std::size_t size) noexcept {
        return static_cast<State*>(ctx)->allocate(size, false);
    }
    static void* calloc(void* ctx, std::size_t count, std::size_t size) noexcept {
        if (base::mul_overflows(count, size)) {
            return nullptr;
        }
        return static_cast<State*>(ctx)->allocate(count * size, true);
    }
    static void* realloc(void* ctx, void* p, std::size_t size) noexcept {
        return static_cast<State*>(ctx)->reallocate(p, size);
    }
    static void free(void* ctx, void* p, std::size_t size) noexcept {
        static_cast<State*>(ctx)->free(p, size);
    }
    static PyDataMemAllocator table(State* state) noexcept {
        return {state, &malloc, &calloc, &realloc, &free};
    }
};

// NumPy's own handler while `install` stands in for it, or has done so; else null.
const PyDataMem_Handler* saved_default() noexcept;

// The body of a capsule's destructor: it may run with an exception pending.
template <class Body>
void with_error_set_aside(Body&& body) noexcept {
    PyObject* type = nullptr;
    PyObject* value = nullptr;
    PyObject* traceback = nullptr;
    PyErr_Fetch(&type, &value, &traceback);
    body();
    PyErr_Restore(type, value, traceback);
}

constexpr const char* capsule_name = "mem_handler";  // NumPy accepts no other
constexpr const char* handler_title = "ndarena";

}  // namespace ndarena::numpy
