/// \file
/// ndarena for other extension modules, in C11: their allocators as resources of
/// ndarena, every resource of ndarena as an allocator, and where arrays lie.
///
/// \code
/// static const ndarena_c_api* ndarena;
///
/// PyMODINIT_FUNC PyInit_mine(void) {
///     ndarena = ndarena_import();
///     if (ndarena == NULL) {
///         return NULL;                            // ImportError says why
///     }
///     ...
/// }
/// static PyObject* resource(PyObject* self, PyObject* unused) {
///     ndarena_functions f = {my_pool, my_allocate, my_deallocate, NULL, my_destroy};
///     return ndarena->resource_new("mine", &f);   // with ndarena.Aligned(64, mine.resource()):
/// }
/// \endcode
///
/// Needs Python.h, and ndarena when the module is imported. Functions return null, or what
/// they say, with a Python exception set where they fail, and need the GIL unless they say
/// otherwise.
#pragma once

#include <Python.h>

#include <stddef.h>  // NOLINT(modernize-deprecated-headers): C reads it, too
#include <stdint.h>  // NOLINT(modernize-deprecated-headers)

// NOLINTBEGIN(modernize-*): this is C

#ifdef __cplusplus
extern "C" {
#endif

/// Counts changes that break modules which were compiled before. Functions that are
/// appended to `ndarena_c_api` do not; they count in `struct_size`.
#define NDARENA_C_ABI_VERSION 1U

/// An allocator of the caller's. None of the functions may throw, call Python, or wait for
/// the GIL; but for `destroy` they may be called from any thread, several at a time, with or
/// without the GIL, and with a Python exception pending.
typedef struct ndarena_functions {
    /// Passed to each of them.
    void* context;
    /// `nbytes` (not 0) at a multiple of `alignment`, a power of two and at least 16; all
    /// zeros if `zero` is not 0. Null is a refusal, and so is a worse aligned address, which
    /// is given back.
    void* (*allocate)(void* context, size_t nbytes, size_t alignment, int zero);
    /// Takes memory back, with the size and alignment it was asked for with.
    void (*deallocate)(void* context, void* p, size_t nbytes, size_t alignment);
    /// Changes the size; contents up to the smaller one stay, and so does the alignment. Null:
    /// refused, and `p` is as it was. May be null: memory moves then.
    void* (*reallocate)(void* context, void* p, size_t old_nbytes, size_t nbytes, size_t alignment);
    /// Called once, with the GIL, when the resource and the last array made with it are
    /// gone. Not if the process ends before. May be null.
    void (*destroy)(void* context);
} ndarena_functions;

/// A resource, an arena's handler or an arena, bound for use without Python.
typedef struct ndarena_resource ndarena_resource;

/// What `ndarena_import` returns.
typedef struct ndarena_c_api {
    uint32_t abi_version;  ///< NDARENA_C_ABI_VERSION of the installed ndarena
    uint32_t struct_size;  ///< sizeof(ndarena_c_api) there

    /// A new Python object, an instance of a subclass of `ndarena.Resource`: a context
    /// manager, and an upstream for every adaptor. `functions` is copied. Null if it fails:
    /// then `destroy` is not called. `name` is UTF-8.
    PyObject* (*resource_new)(const char* name, const ndarena_functions* functions);

    /// Binds an `ndarena.Resource`, `ArenaHandler`, `Arena` or "mem_handler" capsule, or
    /// None for what is current; what is current is what leads on from it. TypeError for
    /// anything else. The object is kept until `resource_release`.
    ndarena_resource* (*resource_bind)(PyObject* object);

    /// Lets go of it; null is none. All its memory has been given back before. A pending
    /// exception stays.
    void (*resource_release)(ndarena_resource* resource);

    /// At least `nbytes` (0 counts as 1) at a multiple of `alignment`, a power of two (less
    /// than 16 count as 16); all zeros if `zero` is not 0. Null if refused, without an
    /// exception. This and the next two: from any thread, with or without the GIL, which a
    /// resource that needs it takes (NumPy's own does, and whatever calls Python).
    void* (*allocate)(ndarena_resource* resource, size_t nbytes, size_t alignment, int zero);
    /// Null: refused, and `p` is as it was. A null `p` is allocated. `old_nbytes` and
    /// `alignment` are what it was last asked for with.
    void* (*reallocate)(ndarena_resource* resource, void* p, size_t old_nbytes, size_t nbytes,
                        size_t alignment);
    /// Null is routine. `nbytes` and `alignment` as above.
    void (*deallocate)(ndarena_resource* resource, void* p, size_t nbytes, size_t alignment);

    /// How far the array's first element lies from the start of its arena, at `*base` (which
    /// may be null) in this process. -1 and a null base if it lies in none; -1 with an
    /// exception set if it is no array. The same offset in every process that has the arena
    /// open.
    int64_t (*array_offset)(PyObject* array, void** base);
} ndarena_c_api;

/// Imports ndarena and returns its functions, for as long as the process lives. Null with an
/// ImportError that says what to do if it is not there, or does not fit these headers.
static inline const ndarena_c_api* ndarena_import(void) {
    const void* found = PyCapsule_Import("ndarena._C_API", 0);
#ifdef __cplusplus
    const ndarena_c_api* api = static_cast<const ndarena_c_api*>(found);
#else
    const ndarena_c_api* api = found;
#endif
    if (api == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_ImportError)) {
            PyErr_Clear();
            PyErr_SetString(PyExc_ImportError,
                            "the installed ndarena has no C API: upgrade ndarena");
        }
        return NULL;
    }
    if (api->abi_version != NDARENA_C_ABI_VERSION) {
        PyErr_Format(PyExc_ImportError,
                     "this module was compiled for version %u of ndarena's C API, and the "
                     "installed ndarena has version %u: compile the module again, or install an "
                     "ndarena that fits it",
                     NDARENA_C_ABI_VERSION, api->abi_version + 0U);
        return NULL;
    }
    if (api->struct_size < sizeof(ndarena_c_api)) {
        PyErr_SetString(PyExc_ImportError,
                        "this module was compiled with a newer ndarena than the installed one: "
                        "upgrade ndarena");
        return NULL;
    }
    return api;
}

#ifdef __cplusplus
}
#endif

// NOLINTEND(modernize-*)
