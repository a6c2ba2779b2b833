// Resources as capsules, and capsules as resources.
#include "numpy/chain_memory.hpp"

#include <cstdio>

namespace ndarena::numpy {
namespace {

using resources::resource_ptr;

// What a capsule owns.
struct chain_state : chain_memory {
    PyDataMem_Handler handler{};
    PyObject* owner = nullptr;
    PyObject* previous = nullptr;
};

int chain_mark = 0;  // its address marks our capsules

chain_state* chain_of(PyObject* capsule) noexcept {
    if (PyCapsule_GetContext(capsule) != &chain_mark) {
        PyErr_Clear();
        return nullptr;
    }
    auto* handler = static_cast<PyDataMem_Handler*>(PyCapsule_GetPointer(capsule, capsule_name));
    return handler == nullptr ? nullptr : static_cast<chain_state*>(handler->allocator.ctx);
}

void destroy_chain(PyObject* capsule) noexcept {
    with_error_set_aside([capsule] {
        if (chain_state* state = chain_of(capsule)) {
            PyObject* owner = state->owner;
            PyObject* previous = state->previous;
            delete state;
            Py_XDECREF(previous);
            Py_XDECREF(owner);
        }
    });
}

class handler_resource final : public resources::unaligned_resource {
public:
    handler_resource(PyObject* capsule, const PyDataMemAllocator& to,
                     std::shared_ptr<resources::counters> counts) noexcept
        : unaligned_resource(std::move(counts)), capsule_(capsule), to_(to) {
        Py_INCREF(capsule_);
    }
    ~handler_resource() override { Py_DECREF(capsule_); }
    handler_resource(const handler_resource&) = delete;
    handler_resource& operator=(const handler_resource&) = delete;

private:
    void* plain_allocate(std::size_t nbytes, bool zero) noexcept override {
        const gil_for_others held;
        return zero ? to_.calloc(to_.ctx, nbytes, 1) : to_.malloc(to_.ctx, nbytes);
    }
    void plain_deallocate(void* p, std::size_t nbytes) noexcept override {
        const gil_for_others held;
        to_.free(to_.ctx, p, nbytes);
    }
    void* plain_reallocate(void* p, std::size_t /*old_bytes*/,
                           std::size_t nbytes) noexcept override {
        return to_.realloc(to_.ctx, p, nbytes);
    }

    PyObject* capsule_;
    PyDataMemAllocator to_;
};

}  // namespace

resource_ptr wrap_handler(PyObject* capsule, std::shared_ptr<resources::counters> counts) {
    const auto* handler =
        static_cast<const PyDataMem_Handler*>(PyCapsule_GetPointer(capsule, capsule_name));
    if (handler == nullptr) {
        return nullptr;
    }
    return std::make_shared<handler_resource>(capsule, handler->allocator, std::move(counts));
}

resource_ptr wrap_default(std::shared_ptr<resources::counters> counts) {
    PyObject* capsule = PyDataMem_DefaultHandler;
    const PyDataMem_Handler* original = saved_default();
    if (original == nullptr) {
        return wrap_handler(capsule, std::move(counts));
    }
    return std::make_shared<handler_resource>(capsule, original->allocator, std::move(counts));
}

PyObject* make_chain(resource_ptr top, PyObject* owner, PyObject* previous,
                     const std::string& name) {
    auto state = std::make_unique<chain_state>();
    state->top = std::move(top);
    std::snprintf(state->handler.name, sizeof state->handler.name, "%s", name.c_str());
    state->handler.version = 1;
    state->handler.allocator = callbacks<chain_state>::table(state.get());
    PyObject* capsule = PyCapsule_New(&state->handler, capsule_name, nullptr);
    if (capsule == nullptr || PyCapsule_SetContext(capsule, &chain_mark) != 0 ||
        PyCapsule_SetDestructor(capsule, &destroy_chain) != 0) {
        Py_XDECREF(capsule);
        return nullptr;
    }
    Py_INCREF(owner);
    Py_XINCREF(previous);
    state->owner = owner;
    state->previous = previous;
    (void)state.release();
    return capsule;
}

PyObject* previous_handler(PyObject* owner) {
    PyObject* capsule = PyDataMem_GetHandler();
    const chain_state* state = capsule == nullptr ? nullptr : chain_of(capsule);
    if (state != nullptr && state->owner == owner && state->previous != nullptr) {
        PyObject* previous = state->previous;
        Py_INCREF(previous);
        Py_DECREF(capsule);
        return previous;
    }
    return capsule;
}

PyObject* owner_of_chain(PyObject* capsule) noexcept {
    const chain_state* state = chain_of(capsule);
    return state == nullptr ? nullptr : state->owner;
}

std::string name_of_handler(PyObject* capsule) {
    const auto* handler =
        static_cast<const PyDataMem_Handler*>(PyCapsule_GetPointer(capsule, capsule_name));
    return handler == nullptr ? std::string() : handler->name;
}

}  // namespace ndarena::numpy
