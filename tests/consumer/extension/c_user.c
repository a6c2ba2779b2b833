/* An extension in plain C that uses ndarena through c_api.h. */
#include <ndarena/c_api.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static const ndarena_c_api* api;

/* ---- an allocator, which knows what it gave out ---- */

struct pool {
    atomic_long live;    /* blocks */
    atomic_long nbytes;  /* in them */
    atomic_long wrong;   /* given back with another size or alignment */
    atomic_long resized; /* calls of reallocate */
    int refuse;
    int crooked;
    struct pool_state* state; /* outlives it */
};
struct pool_state {
    long destroyed;
    struct pool* pool;
};
/* Before each block; at least 64 bytes, so that blocks stay aligned. */
struct note {
    size_t nbytes;
    size_t alignment;
    void* start;
};

static struct note* note_of(void* p) {
    return (struct note*)(void*)((char*)p - sizeof(struct note));
}

static void* pool_allocate(void* context, size_t nbytes, size_t alignment, int zero) {
    struct pool* pool = context;
    size_t room = alignment < 64 ? 64 : alignment;
    if (pool->refuse || nbytes > SIZE_MAX / 4) {
        return NULL;
    }
    char* start = aligned_alloc(room, (nbytes + 2 * room - 1) / room * room + room);
    if (start == NULL) {
        return NULL;
    }
    char* p = start + room + (pool->crooked ? 8 : 0);
    struct note note = {nbytes, alignment, start};
    memcpy(note_of(p), &note, sizeof note);
    memset(p, zero ? 0 : 0xA5, nbytes);
    atomic_fetch_add(&pool->live, 1);
    atomic_fetch_add(&pool->nbytes, (long)nbytes);
    return p;
}

static void pool_deallocate(void* context, void* p, size_t nbytes, size_t alignment) {
    struct pool* pool = context;
    struct note note;
    memcpy(&note, note_of(p), sizeof note);
    if (note.nbytes != nbytes || note.alignment != alignment) {
        atomic_fetch_add(&pool->wrong, 1);
        return;
    }
    atomic_fetch_sub(&pool->live, 1);
    atomic_fetch_sub(&pool->nbytes, (long)nbytes);
    free(note.start);
}

static void* pool_reallocate(void* context, void* p, size_t old_nbytes, size_t nbytes,
                             size_t alignment) {
    struct pool* pool = context;
    atomic_fetch_add(&pool->resized, 1);
    void* q = pool_allocate(context, nbytes, alignment, 0);
    if (q != NULL) {
        memcpy(q, p, old_nbytes < nbytes ? old_nbytes : nbytes);
        pool_deallocate(context, p, old_nbytes, alignment);
    }
    return q;
}

static void pool_destroy(void* context) {
    struct pool* pool = context;
    pool->state->destroyed += PyGILState_Check() ? 1 : 100;
    pool->state->pool = NULL;
    free(pool);
}

enum { most_pools = 64 };
static struct pool_state pools[most_pools];
static int n_pools;

/* new_resource(name, resize) -> (resource, number); with `fail`, none, which is to fail */
static PyObject* new_resource(PyObject* self, PyObject* arguments) {
    const char* name = NULL;
    int resize = 0;
    int fail = 0;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "zi|i", &name, &resize, &fail) || n_pools == most_pools) {
        return NULL;
    }
    struct pool* pool = calloc(1, sizeof *pool);
    if (pool == NULL) {
        return PyErr_NoMemory();
    }
    pool->state = &pools[n_pools];
    pool->state->pool = pool;
    ndarena_functions functions = {pool, pool_allocate, fail ? NULL : pool_deallocate,
                                   resize ? pool_reallocate : NULL, pool_destroy};
    PyObject* resource = api->resource_new(name, &functions);
    if (resource == NULL) {
        if (pool->state->destroyed == 0) {
            free(pool); /* it is still ours */
        }
        return NULL;
    }
    return Py_BuildValue("Ni", resource, n_pools++);
}

/* look(number) -> (live, nbytes, wrong, resized), or how often it was destroyed */
static PyObject* look(PyObject* self, PyObject* arguments) {
    int number = 0;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "i", &number)) {
        return NULL;
    }
    struct pool* pool = pools[number].pool;
    if (pool == NULL) {
        return PyLong_FromLong(pools[number].destroyed);
    }
    return Py_BuildValue("llll", atomic_load(&pool->live), atomic_load(&pool->nbytes),
                         atomic_load(&pool->wrong), atomic_load(&pool->resized));
}

static PyObject* order(PyObject* self, PyObject* arguments) {
    int number = 0;
    int refuse = 0;
    int crooked = 0;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "iii", &number, &refuse, &crooked)) {
        return NULL;
    }
    pools[number].pool->refuse = refuse;
    pools[number].pool->crooked = crooked;
    Py_RETURN_NONE;
}

/* ---- resources of ndarena as allocators ---- */

static const char* bound_name = "c_user.bound";

static ndarena_resource* resource_of(PyObject* capsule) {
    return PyCapsule_GetPointer(capsule, bound_name);
}
static void drop(PyObject* capsule) { api->resource_release(resource_of(capsule)); }

static PyObject* bind(PyObject* self, PyObject* object) {
    (void)self;
    ndarena_resource* resource = api->resource_bind(object);
    return resource == NULL ? NULL : PyCapsule_New(resource, bound_name, drop);
}

static PyObject* address(void* p) { return PyLong_FromVoidPtr(p); }

/* Without the GIL, as a C program would. */
static PyObject* allocate(PyObject* self, PyObject* arguments) {
    PyObject* capsule = NULL;
    Py_ssize_t nbytes = 0;
    Py_ssize_t alignment = 0;
    int zero = 0;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "Onni", &capsule, &nbytes, &alignment, &zero)) {
        return NULL;
    }
    ndarena_resource* resource = resource_of(capsule);
    void* p = NULL;
    Py_BEGIN_ALLOW_THREADS;
    p = api->allocate(resource, (size_t)nbytes, (size_t)alignment, zero);
    Py_END_ALLOW_THREADS;
    return address(p);
}

static PyObject* reallocate(PyObject* self, PyObject* arguments) {
    PyObject* capsule = NULL;
    unsigned long long p = 0;
    Py_ssize_t old_nbytes = 0;
    Py_ssize_t nbytes = 0;
    Py_ssize_t alignment = 0;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "OKnnn", &capsule, &p, &old_nbytes, &nbytes, &alignment)) {
        return NULL;
    }
    return address(api->reallocate(resource_of(capsule), (void*)(uintptr_t)p, (size_t)old_nbytes,
                                   (size_t)nbytes, (size_t)alignment));
}

static PyObject* deallocate(PyObject* self, PyObject* arguments) {
    PyObject* capsule = NULL;
    unsigned long long p = 0;
    Py_ssize_t nbytes = 0;
    Py_ssize_t alignment = 0;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "OKnn", &capsule, &p, &nbytes, &alignment)) {
        return NULL;
    }
    api->deallocate(resource_of(capsule), (void*)(uintptr_t)p, (size_t)nbytes, (size_t)alignment);
    Py_RETURN_NONE;
}

struct job {
    ndarena_resource* resource;
    long wrong;
};

static void* work(void* argument) {
    struct job* job = argument;
    for (size_t i = 1; i < 500; ++i) {
        size_t nbytes = i * 37 % 5000 + 1;
        unsigned char* p = api->allocate(job->resource, nbytes, 64, 1);
        if (p == NULL || (uintptr_t)p % 64 != 0 || p[0] != 0 || p[nbytes - 1] != 0) {
            ++job->wrong;
            continue;
        }
        memset(p, (int)(i % 255), nbytes);
        unsigned char* q = api->reallocate(job->resource, p, nbytes, 2 * nbytes, 64);
        if (q == NULL || q[0] != i % 255 || q[nbytes - 1] != i % 255) {
            ++job->wrong;
            continue;
        }
        api->deallocate(job->resource, q, 2 * nbytes, 64);
    }
    return NULL;
}

/* Threads that Python has never heard of. How often something went wrong. */
static PyObject* in_threads(PyObject* self, PyObject* capsule) {
    enum { n = 4 };
    pthread_t threads[n];
    struct job jobs[n];
    long wrong = 0;
    (void)self;
    ndarena_resource* resource = resource_of(capsule);
    if (resource == NULL) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS;
    for (int i = 0; i < n; ++i) {
        jobs[i] = (struct job){resource, 0};
        if (pthread_create(&threads[i], NULL, work, &jobs[i]) != 0) {
            abort();
        }
    }
    for (int i = 0; i < n; ++i) {
        pthread_join(threads[i], NULL);
        wrong += jobs[i].wrong;
    }
    Py_END_ALLOW_THREADS;
    return PyLong_FromLong(wrong);
}

/* ---- where arrays lie, and versions ---- */

/* (offset, address of the arena or 0) */
static PyObject* offset(PyObject* self, PyObject* array) {
    void* base = self;
    int64_t found = api->array_offset(array, &base);
    if (found == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (found != api->array_offset(array, NULL)) {
        Py_RETURN_NONE;
    }
    return Py_BuildValue("LN", (long long)found, address(base));
}

static PyObject* import_again(PyObject* self, PyObject* unused) {
    (void)self;
    (void)unused;
    const ndarena_c_api* found = ndarena_import();
    return found == NULL ? NULL
                         : Py_BuildValue("III", found->abi_version, found->struct_size,
                                         (unsigned)sizeof(ndarena_c_api));
}

static PyMethodDef methods[] = {
    {"new_resource", new_resource, METH_VARARGS, NULL},
    {"look", look, METH_VARARGS, NULL},
    {"order", order, METH_VARARGS, NULL},
    {"bind", bind, METH_O, NULL},
    {"allocate", allocate, METH_VARARGS, NULL},
    {"reallocate", reallocate, METH_VARARGS, NULL},
    {"deallocate", deallocate, METH_VARARGS, NULL},
    {"in_threads", in_threads, METH_O, NULL},
    {"offset", offset, METH_O, NULL},
    {"import_again", import_again, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "c_user", NULL, -1, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_c_user(void) {
    api = ndarena_import();
    return api == NULL ? NULL : PyModule_Create(&definition);
}
