// The handler of the whole process: NumPy's default capsule is pointed at one
// of ours, which reaches every thread and context that has none of its own.
//
// Arrays made through it do not hold a capsule of ours, so nothing of NumPy's
// tells when their arena may go. Every arena that was ever installed is kept
// on a list that only grows, and its lease is dropped once it is retired and
// empty. What the former default allocated before, and what is too small,
// belongs to it for ever.
#include "numpy/target.hpp"

#include <cstdio>

namespace ndarena::numpy {
namespace {

struct installed_arena {
    std::shared_ptr<lease> held;
    closed_flag closed;
    target to;
    // Callbacks inside it at the moment; its lease goes only when none is.
    std::atomic<std::uint32_t> visitors{0};
    enum class phase : std::uint8_t { here, leaving, gone };
    std::atomic<phase> state{phase::here};
    installed_arena* older = nullptr;
};

struct redirection {
    platform::mutex mutex;  // one installs, uninstalls or forgets at a time
    PyDataMem_Handler handler{};
    PyDataMem_Handler* saved = nullptr;  // NumPy's own
    std::atomic<installed_arena*> newest{nullptr};
    std::atomic<installed_arena*> current{nullptr};  // takes new requests

    void* allocate(std::size_t nbytes, bool zero) noexcept;
    void* reallocate(void* p, std::size_t nbytes) noexcept;
    void free(void* p, std::size_t nbytes) noexcept;
};

// Never destroyed: NumPy frees arrays until the process has ended.
redirection& the_redirection() noexcept {
    static auto* r = new redirection;
    return *r;
}

// Inside an arena for the length of one callback; empty if it is gone. While
// somebody decides whether it may go, visitors wait: it takes no system call.
class visit {
public:
    explicit visit(installed_arena* a) noexcept {
        using phase = installed_arena::phase;
        while (a != nullptr && a->state.load(std::memory_order_acquire) != phase::gone) {
            a->visitors.fetch_add(1, std::memory_order_seq_cst);
            if (a->state.load(std::memory_order_seq_cst) == phase::here) {
                arena_ = a;
                return;
            }
            a->visitors.fetch_sub(1, std::memory_order_seq_cst);
            platform::cpu_pause();
        }
    }
    ~visit() {
        if (arena_ != nullptr) {
            arena_->visitors.fetch_sub(1, std::memory_order_release);
        }
    }
    visit(const visit&) = delete;
    visit& operator=(const visit&) = delete;
    installed_arena* get() const noexcept { return arena_; }

private:
    installed_arena* arena_ = nullptr;
};

void* redirection::allocate(std::size_t nbytes, bool zero) noexcept {
    const visit here(current.load(std::memory_order_acquire));
    if (here.get() != nullptr && !here.get()->closed->load(std::memory_order_relaxed)) {
        return here.get()->to.allocate(nbytes, zero);
    }
    const PyDataMemAllocator& a = saved->allocator;
    return zero ? a.calloc(a.ctx, nbytes, 1) : a.malloc(a.ctx, nbytes);
}

void* redirection::reallocate(void* p, std::size_t nbytes) noexcept {
    for (auto* a = newest.load(std::memory_order_acquire); p != nullptr && a != nullptr;
         a = a->older) {
        const visit here(a);
        if (here.get() != nullptr && a->to.heap->contains(p)) {
            return a->to.reallocate(p, nbytes);
        }
    }
    return p == nullptr ? allocate(nbytes, false)
                        : saved->allocator.realloc(saved->allocator.ctx, p, nbytes);
}

void redirection::free(void* p, std::size_t nbytes) noexcept {
    for (auto* a = newest.load(std::memory_order_acquire); p != nullptr && a != nullptr;
         a = a->older) {
        const visit here(a);
        if (here.get() != nullptr && a->to.heap->contains(p)) {
            a->to.free(p, nbytes);
            return;
        }
    }
    saved->allocator.free(saved->allocator.ctx, p, nbytes);
}

bool point_at(redirection& r, std::shared_ptr<lease> held, closed_flag closed,
              const handler_options& options) {
    platform::lock_guard guard(r.mutex);
    if (r.saved == nullptr) {
        auto* original = static_cast<PyDataMem_Handler*>(
            PyCapsule_GetPointer(PyDataMem_DefaultHandler, capsule_name));
        if (original == nullptr) {
            return false;
        }
        r.saved = original;
        std::snprintf(r.handler.name, sizeof r.handler.name, "%s", original->name);
        r.handler.version = 1;
        r.handler.allocator = callbacks<redirection>::table(&r);
    }
    auto* added = new installed_arena;
    added->to.heap = &held->heap();
    added->held = std::move(held);
    added->closed = std::move(closed);
    added->to.closed = added->closed.get();
    added->to.upstream = r.saved;
    added->to.min_size = options.min_size;
    added->to.fallback = options.fallback;
    added->older = r.newest.load(std::memory_order_relaxed);
    r.newest.store(added, std::memory_order_release);
    r.current.store(added, std::memory_order_release);
    // Once, for good: threads without a GIL read the pointer with no lock. What it
    // leads to is there first.
    if (PyCapsule_GetPointer(PyDataMem_DefaultHandler, capsule_name) == &r.handler) {
        return true;
    }
    base::order_stores();
    return PyCapsule_SetPointer(PyDataMem_DefaultHandler, &r.handler) == 0;
}

}  // namespace

bool install(std::shared_ptr<lease> held, closed_flag closed, const handler_options& options) {
    redirection& r = the_redirection();
    const bool done = point_at(r, std::move(held), std::move(closed), options);
    forget_retired();
    return done;
}

void uninstall() {
    the_redirection().current.store(nullptr, std::memory_order_release);
    forget_retired();
}

void forget_retired() {
    using phase = installed_arena::phase;
    redirection& r = the_redirection();
    std::vector<std::shared_ptr<lease>> dropped;  // let go of outside the lock
    platform::lock_guard guard(r.mutex);
    installed_arena* current = r.current.load(std::memory_order_acquire);
    if (current != nullptr && current->closed->load(std::memory_order_acquire)) {
        r.current.store(nullptr, std::memory_order_release);
        current = nullptr;
    }
    for (auto* a = r.newest.load(std::memory_order_acquire); a != nullptr; a = a->older) {
        if (a == current || a->state.load(std::memory_order_acquire) != phase::here) {
            continue;
        }
        // First keep everybody out, then look whether anything of it is alive.
        a->state.store(phase::leaving, std::memory_order_seq_cst);
        if (a->visitors.load(std::memory_order_seq_cst) != 0 || a->to.heap->live_blocks() != 0) {
            a->state.store(phase::here, std::memory_order_seq_cst);
            continue;
        }
        a->state.store(phase::gone, std::memory_order_seq_cst);
        a->to.heap = nullptr;
        dropped.push_back(std::move(a->held));
    }
}

}  // namespace ndarena::numpy
