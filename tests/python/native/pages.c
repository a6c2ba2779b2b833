/* An allocator as a library of its own: every request has pages to itself, it counts, and its
 * functions need no Python. Beside it, what the tests cannot do from Python: a thread that Python
 * knows nothing of. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { page = 4096 };

atomic_long pages_live = 0;
atomic_size_t pages_asked = 0; /* by the last request, in bytes */
atomic_long pages_refuse = 0;  /* whether all are refused */

static size_t rounded(size_t nbytes) { return (nbytes + 2 * page - 1) / page * page; }

/* The page before says how large it is. */
static void* take(size_t nbytes) {
    pages_asked = nbytes;
    if (pages_refuse || nbytes > SIZE_MAX / 2) {
        return NULL;
    }
    size_t* first =
        mmap(NULL, rounded(nbytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (first == MAP_FAILED) {
        return NULL;
    }
    *first = nbytes;
    ++pages_live;
    return (char*)first + page;
}

static size_t size_of(void* p) { return *(size_t*)((char*)p - page); }

void* pages_malloc(size_t nbytes) {
    void* p = take(nbytes);
    if (p != NULL) {
        memset(p, 0xA5, nbytes);
    }
    return p;
}

void pages_free(void* p) {
    if (p != NULL) {
        --pages_live;
        munmap((char*)p - page, rounded(size_of(p)));
    }
}

void* pages_calloc(size_t count, size_t size) { return take(count * size); }

void* pages_realloc(void* p, size_t nbytes) {
    void* q = take(nbytes);
    if (q != NULL) {
        size_t old = size_of(p);
        memcpy(q, p, old < nbytes ? old : nbytes);
        pages_free(p);
    }
    return q;
}

void* pages_aligned_alloc(size_t alignment, size_t nbytes) {
    return alignment <= page ? take(nbytes) : NULL;
}

/* Eight more than they should be. */
void* pages_crooked(size_t nbytes) {
    char* p = take(nbytes + 8);
    return p == NULL ? NULL : p + 8;
}
void pages_uncrook(void* p) { pages_free((char*)p - 8); }

/* What NumPy calls, from a thread without a Python state. */
struct job {
    void* (*malloc)(void* context, size_t nbytes);
    void (*free)(void* context, void* p, size_t nbytes);
    void* context;
    size_t nbytes;
    void* result;
};

static void* do_job(void* argument) {
    struct job* job = argument;
    job->result = job->malloc(job->context, job->nbytes);
    if (job->result != NULL) {
        memset(job->result, 1, job->nbytes);
        job->free(job->context, job->result, job->nbytes);
    }
    return NULL;
}

/* The address that it was given, or NULL. */
void* in_a_thread(struct job* job) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, do_job, job) != 0) {
        return NULL;
    }
    pthread_join(thread, NULL);
    return job->result;
}
