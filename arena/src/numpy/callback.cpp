// Python callables as a resource.
#include "numpy/target.hpp"

namespace ndarena::numpy {
namespace {

using resources::counters;
using resources::least_alignment;

// The GIL, no pending exception, and another handler than ours, for the length of
// one call from wherever: what is called may make arrays of its own. Untrue when
// the interpreter has ended: nothing can be called any more.
class python_scope {
public:
    explicit python_scope(PyObject* handler) noexcept : there_(Py_IsInitialized() != 0) {
        if (there_) {
            state_ = PyGILState_Ensure();
            PyErr_Fetch(&type_, &value_, &traceback_);
            current_ = PyDataMem_SetHandler(handler);
            PyErr_Clear();
        }
    }
    ~python_scope() {
        if (there_) {
            if (current_ != nullptr) {
                Py_XDECREF(PyDataMem_SetHandler(current_));
                Py_DECREF(current_);
            }
            PyErr_Restore(type_, value_, traceback_);
            PyGILState_Release(state_);
        }
    }
    python_scope(const python_scope&) = delete;
    python_scope& operator=(const python_scope&) = delete;
    explicit operator bool() const noexcept { return there_; }

private:
    bool there_;
    PyGILState_STATE state_{};
    PyObject* type_ = nullptr;
    PyObject* value_ = nullptr;
    PyObject* traceback_ = nullptr;
    PyObject* current_ = nullptr;
};

class callback_resource final : public resources::unaligned_resource {
public:
    callback_resource(const callables& to, std::shared_ptr<counters> counts) noexcept
        : unaligned_resource(std::move(counts)), to_(to) {
        for (PyObject* o : {to_.malloc, to_.free, to_.calloc, to_.realloc, to_.handler}) {
            Py_XINCREF(o);
        }
    }
    ~callback_resource() override {  // with the GIL, like all resources with Python in them
        for (PyObject* o : {to_.malloc, to_.free, to_.calloc, to_.realloc, to_.handler}) {
            Py_XDECREF(o);
        }
    }
    callback_resource(const callback_resource&) = delete;
    callback_resource& operator=(const callback_resource&) = delete;

private:
    static PyObject* number(std::size_t n) noexcept { return PyLong_FromSize_t(n); }
    static PyObject* number(void* p) noexcept { return PyLong_FromVoidPtr(p); }

    // The result, a new reference; null with an exception set.
    template <class... Numbers>
    static PyObject* call(PyObject* function, Numbers... numbers) noexcept {
        PyObject* arguments[] = {number(numbers)...};
        PyObject* result = nullptr;
        PyObject* tuple = PyTuple_New(sizeof...(numbers));
        bool whole = tuple != nullptr;
        for (std::size_t i = 0; i < sizeof...(numbers); ++i) {
            whole = whole && arguments[i] != nullptr;
        }
        if (!whole) {
            for (PyObject* argument : arguments) {
                Py_XDECREF(argument);
            }
            Py_XDECREF(tuple);
            return nullptr;
        }
        for (std::size_t i = 0; i < sizeof...(numbers); ++i) {
            PyTuple_SET_ITEM(tuple, static_cast<Py_ssize_t>(i), arguments[i]);
        }
        result = PyObject_CallObject(function, tuple);
        Py_DECREF(tuple);
        return result;
    }
    // None and 0 are refusals, and so are exceptions and what is no address.
    template <class... Numbers>
    static void* address_from(PyObject* function, Numbers... numbers) noexcept {
        PyObject* result = call(function, numbers...);
        void* p = nullptr;
        if (result != nullptr && result != Py_None) {
            PyObject* index = PyNumber_Index(result);
            p = index == nullptr ? nullptr : PyLong_AsVoidPtr(index);
            Py_XDECREF(index);
        }
        Py_XDECREF(result);
        if (PyErr_Occurred() != nullptr) {
            PyErr_WriteUnraisable(function);
            return nullptr;
        }
        return p;
    }
    void give_back(void* p, std::size_t nbytes) noexcept {
        PyObject* result = to_.free_with_size ? call(to_.free, p, nbytes) : call(to_.free, p);
        if (result == nullptr) {
            PyErr_WriteUnraisable(to_.free);
        }
        Py_XDECREF(result);
    }

    void* plain_allocate(std::size_t nbytes, bool zero) noexcept override {
        const python_scope here(to_.handler);
        if (!here) {
            return nullptr;
        }
        const bool cleared = zero && to_.calloc != nullptr;
        void* p = cleared ? address_from(to_.calloc, std::size_t{1}, nbytes)
                          : address_from(to_.malloc, nbytes);
        if ((reinterpret_cast<std::uintptr_t>(p) & (least_alignment - 1)) != 0) {
            PyErr_SetString(PyExc_ValueError, "memory for NumPy is aligned to 16 bytes");
            PyErr_WriteUnraisable(cleared ? to_.calloc : to_.malloc);
            give_back(p, nbytes);
            return nullptr;
        }
        if (p != nullptr && zero && !cleared) {
            std::memset(p, 0, nbytes);
        }
        return p;
    }
    void plain_deallocate(void* p, std::size_t nbytes) noexcept override {
        if (const python_scope here(to_.handler); here) {
            give_back(p, nbytes);
        }
    }
    void* plain_reallocate(void* p, std::size_t old_bytes, std::size_t nbytes) noexcept override {
        if (to_.realloc == nullptr) {
            return unaligned_resource::plain_reallocate(p, old_bytes, nbytes);
        }
        const python_scope here(to_.handler);
        return here ? address_from(to_.realloc, p, nbytes) : nullptr;
    }

    callables to_;
};

}  // namespace

resources::resource_ptr wrap_callables(const callables& to, std::shared_ptr<counters> counts) {
    return std::make_shared<callback_resource>(to, std::move(counts));
}

}  // namespace ndarena::numpy
