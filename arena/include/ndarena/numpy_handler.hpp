/// \file
/// What a capsule of `numpy.hpp` owns: callbacks over a source of memory. Not for users.
#pragma once

#include <Python.h>

#include <numpy/ndarraytypes.h>

#include <ndarena/numpy_sizes.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <utility>

#pragma GCC visibility push(hidden)
namespace ndarena::numpy_detail {

constexpr const char* capsule_name = "mem_handler";  // NumPy accepts no other
constexpr std::size_t least_alignment = 16;          // long double and its vectors

/// Keeps the compiler from believing what functions are declared to return: memory
/// resources, for one, never null and always aligned. Here it is looked at.
inline void* as_it_is(void* p) noexcept {
    __asm__ volatile("" : "+r"(p));
    return p;
}

inline bool is_aligned(const void* p) noexcept {
    return (reinterpret_cast<std::uintptr_t>(p) & (least_alignment - 1)) == 0;
}

/// Sets a pending exception aside for the length of a scope.
class error_set_aside {
public:
#if PY_VERSION_HEX >= 0x030C0000
    error_set_aside() noexcept : error_(PyErr_GetRaisedException()) {}
    ~error_set_aside() { PyErr_SetRaisedException(error_); }
#else
    error_set_aside() noexcept { PyErr_Fetch(&type_, &error_, &traceback_); }
    ~error_set_aside() { PyErr_Restore(type_, error_, traceback_); }
#endif
    error_set_aside(const error_set_aside&) = delete;
    error_set_aside& operator=(const error_set_aside&) = delete;

private:
#if PY_VERSION_HEX < 0x030C0000
    PyObject* type_ = nullptr;
    PyObject* traceback_ = nullptr;
#endif
    PyObject* error_ = nullptr;
};

/// What a capsule owns. The callbacks call no Python function and throw nothing.
///
/// A `Source` has `void* allocate(nbytes)` and `deallocate(p, nbytes)`, which may throw.
/// What it gives is aligned to `least_alignment`, or null.
template <class Source>
class handler_state {
public:
    template <class... Arguments>
    explicit handler_state(Arguments&&... arguments)
        : source_(std::forward<Arguments>(arguments)...) {
        handler_.version = 1;
        handler_.allocator = {this, &malloc, &calloc, &realloc, &free};
    }
    PyDataMem_Handler* handler() noexcept { return &handler_; }

    static void destroy(PyObject* capsule) noexcept {
        const error_set_aside pending;
        auto* handler =
            static_cast<PyDataMem_Handler*>(PyCapsule_GetPointer(capsule, capsule_name));
        delete static_cast<handler_state*>(handler->allocator.ctx);
    }

private:
    static handler_state& of(void* context) noexcept {
        return *static_cast<handler_state*>(context);
    }
    static void* malloc(void* context, std::size_t nbytes) noexcept {
        return of(context).allocate(nbytes, false);
    }
    static void* calloc(void* context, std::size_t count, std::size_t size) noexcept {
        if (size != 0 && count > SIZE_MAX / size) {
            return nullptr;
        }
        return of(context).allocate(count * size, true);
    }
    static void* realloc(void* context, void* p, std::size_t nbytes) noexcept {
        return p == nullptr ? of(context).allocate(nbytes, false)
                            : of(context).reallocate(p, nbytes);
    }
    static void free(void* context, void* p, std::size_t /*not reliable*/) noexcept {
        of(context).free(p);
    }

    void* allocate(std::size_t nbytes, bool zero) noexcept {
        nbytes = nbytes == 0 ? 1 : nbytes;
        void* p = ask(nbytes);
        if (p == nullptr) {
            return nullptr;
        }
        if (!sizes_.insert(p, nbytes)) {
            give_back(p, nbytes);
            return nullptr;
        }
        if (zero) {
            std::memset(p, 0, nbytes);
        }
        return p;
    }
    void* reallocate(void* p, std::size_t nbytes) noexcept {
        const std::size_t old = sizes_.find(p);
        void* q = old == 0 ? nullptr : allocate(nbytes, false);
        if (q != nullptr) {
            std::memcpy(q, p, std::min(old, nbytes));
            free(p);
        }
        return q;
    }
    /// Null is routine. What was never given out is left alone.
    void free(void* p) noexcept {
        // Forgotten first: once given back, another thread may be given it at once.
        const std::size_t nbytes = p == nullptr ? 0 : sizes_.take(p);
        if (nbytes != 0) {
            give_back(p, nbytes);
        }
    }
    void* ask(std::size_t nbytes) noexcept {
        try {
            const std::lock_guard<std::mutex> guard(sizes_.turn());
            return source_.allocate(nbytes);
        } catch (...) {
            return nullptr;
        }
    }
    void give_back(void* p, std::size_t nbytes) noexcept {
        try {
            const std::lock_guard<std::mutex> guard(sizes_.turn());
            source_.deallocate(p, nbytes);
        } catch (...) {  // which it must not; there is nobody to tell
            return;
        }
    }

    PyDataMem_Handler handler_{};
    Source source_;
    size_table sizes_;
};

/// At most 126 bytes of UTF-8; an ellipsis ends what was longer.
inline void set_name(PyDataMem_Handler& handler, const char* name) noexcept {
    constexpr const char* ellipsis = "\xE2\x80\xA6";
    constexpr std::size_t longest = sizeof handler.name - 1;
    name = name == nullptr || *name == '\0' ? "cpp_allocator" : name;
    std::size_t n = std::strlen(name);
    const bool whole = n <= longest;
    n = whole ? n : longest - 3;
    while (!whole && n > 0 && (static_cast<unsigned char>(name[n]) & 0xC0U) == 0x80U) {
        --n;  // not in the middle of a character
    }
    std::memcpy(handler.name, name, n);
    std::memcpy(handler.name + n, ellipsis, whole ? 0 : 3);
}

template <class Source, class... Arguments>
PyObject* make_capsule(const char* name, Arguments&&... arguments) noexcept {
    using state = handler_state<Source>;
    std::unique_ptr<state> made;
    try {
        made = std::make_unique<state>(std::forward<Arguments>(arguments)...);
    } catch (const std::bad_alloc&) {
        return PyErr_NoMemory();
    } catch (const std::exception& e) {
        PyErr_SetString(PyExc_RuntimeError, e.what());
        return nullptr;
    } catch (...) {
        PyErr_SetString(PyExc_RuntimeError, "the allocator could not be moved");
        return nullptr;
    }
    set_name(*made->handler(), name);
    PyObject* capsule = PyCapsule_New(made->handler(), capsule_name, &state::destroy);
    if (capsule != nullptr) {
        (void)made.release();
    }
    return capsule;
}

}  // namespace ndarena::numpy_detail
#pragma GCC visibility pop
