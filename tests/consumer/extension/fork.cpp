// Forks while other threads are inside a handler, without Python.
#include <ndarena/numpy.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

PyObject* fork_while_busy(PyObject* self, PyObject* arguments);

namespace {

// Blocks come and go, each with its own contents; false if one has been changed.
bool work(const PyDataMemAllocator& a, unsigned seed, int steps) {
    struct block {
        unsigned char* p;
        std::size_t nbytes;
        unsigned char mark;
    };
    std::vector<block> blocks;
    bool fine = true;
    for (int i = 0; i < steps; ++i) {
        seed = seed * 1664525 + 1013904223;
        const std::size_t nbytes = 1 + (seed >> 8) % 700;
        const auto mark = static_cast<unsigned char>(seed >> 24);
        if (blocks.size() < 4) {
            auto* p = static_cast<unsigned char*>((seed & 64) != 0 ? a.malloc(a.ctx, nbytes)
                                                                   : a.calloc(a.ctx, nbytes, 1));
            fine = fine && p != nullptr;
            if (p != nullptr) {
                std::memset(p, mark, nbytes);
                blocks.push_back({p, nbytes, mark});
            }
            continue;
        }
        block& b = blocks[(seed >> 16) % blocks.size()];
        const std::size_t kept = std::min(b.nbytes, nbytes);
        auto* p = static_cast<unsigned char*>(a.realloc(a.ctx, b.p, nbytes));
        fine = fine && p != nullptr;
        if (p != nullptr) {
            for (std::size_t k = 0; k < kept; ++k) {
                fine = fine && p[k] == b.mark;
            }
            a.free(a.ctx, p, 0);
        }
        b = blocks.back();
        blocks.pop_back();
    }
    for (const block& b : blocks) {
        a.free(a.ctx, b.p, b.nbytes);
    }
    return fine;
}

}  // namespace

// fork_while_busy(capsule, threads, forks): how many children, and threads, went wrong.
PyObject* fork_while_busy(PyObject* /*self*/, PyObject* arguments) {
    PyObject* capsule = nullptr;
    int n_threads = 0;
    int n_forks = 0;
    if (PyArg_ParseTuple(arguments, "Oii", &capsule, &n_threads, &n_forks) == 0) {
        return nullptr;
    }
    const auto* handler =
        static_cast<const PyDataMem_Handler*>(PyCapsule_GetPointer(capsule, "mem_handler"));
    if (handler == nullptr) {
        return nullptr;
    }
    const PyDataMemAllocator& a = handler->allocator;
    std::atomic<int> wrong{0};
    Py_BEGIN_ALLOW_THREADS;
    std::atomic<bool> done{false};
    std::vector<std::thread> threads;
    for (int t = 0; t < n_threads; ++t) {
        threads.emplace_back([&, t] {
            for (unsigned i = 0; i < 5 || !done; ++i) {
                wrong += work(a, i * 100 + static_cast<unsigned>(t), 200) ? 0 : 1;
            }
        });
    }
    void* inherited = a.malloc(a.ctx, 1000);
    for (int f = 0; f < n_forks; ++f) {
        const pid_t child = ::fork();
        if (child == 0) {
            ::alarm(60);  // a lock that nobody will ever give back
            a.free(a.ctx, inherited, 1000);
            ::_exit(work(a, static_cast<unsigned>(f), 50) ? 0 : 1);
        }
        int status = -1;
        wrong += child > 0 && ::waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
    }
    a.free(a.ctx, inherited, 1);  // NumPy's size is not always right
    done = true;
    for (auto& t : threads) {
        t.join();
    }
    Py_END_ALLOW_THREADS;
    return PyLong_FromLong(wrong);
}
