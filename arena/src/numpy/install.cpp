// The handler of the whole process: NumPy's default capsule is pointed at one
// of ours, which reaches every thread and context that has none of its own.
//
// Arrays made through it do not hold a capsule of ours, so nothing of NumPy's
// tells when their memory's owner may go. Everything that was ever installed is
// kept on a list that only grows, and is let go of once it is retired and
// empty. What the former default allocated before, and what is too small for an
// arena, belongs to it for ever.
#include "numpy/chain_memory.hpp"

#include <cstdio>

namespace ndarena::numpy {
namespace {

// What stands in for the default, or has done so.
class installed {
public:
    enum class phase : std::uint8_t { here, leaving, gone };

    installed() = default;
    virtual ~installed() = default;
    installed(const installed&) = delete;
    installed& operator=(const installed&) = delete;

    virtual bool is_closed() const noexcept = 0;
    virtual bool is_empty() noexcept = 0;
    virtual void* allocate(std::size_t nbytes, bool zero) noexcept = 0;
    // False, and nothing has happened, if the memory is not its own.
    virtual bool reallocate(void* p, std::size_t nbytes, void*& q) noexcept = 0;
    virtual bool free(void* p, std::size_t nbytes) noexcept = 0;
    // The Python object whose memory it is; null if it is not its own, or has none.
    virtual PyObject* owner_of(const void* p) noexcept = 0;
    // What it keeps, for the caller to drop; it is never used again.
    virtual std::shared_ptr<void> let_go() noexcept = 0;

    // Callbacks inside it at the moment; it goes only when none is.
    std::atomic<std::uint32_t> visitors{0};
    std::atomic<phase> state{phase::here};
    installed* older = nullptr;
};

class installed_arena final : public installed {
public:
    installed_arena(std::shared_ptr<lease> held, closed_flag closed, const handler_options& options,
                    const PyDataMem_Handler* upstream)
        : held_(std::move(held)), closed_(std::move(closed)) {
        to_.heap = &held_->heap();
        to_.closed = closed_.get();
        to_.upstream = upstream;
        to_.min_size = options.min_size;
        to_.fallback = options.fallback;
    }

private:
    bool is_closed() const noexcept override { return closed_->load(std::memory_order_acquire); }
    bool is_empty() noexcept override { return to_.heap->live_blocks() == 0; }
    void* allocate(std::size_t nbytes, bool zero) noexcept override {
        return to_.allocate(nbytes, zero);
    }
    bool reallocate(void* p, std::size_t nbytes, void*& q) noexcept override {
        if (!to_.heap->contains(p)) {
            return false;
        }
        q = to_.reallocate(p, nbytes);
        return true;
    }
    bool free(void* p, std::size_t nbytes) noexcept override {
        if (!to_.heap->contains(p)) {
            return false;
        }
        to_.free(p, nbytes);
        return true;
    }
    PyObject* owner_of(const void* /*p*/) noexcept override { return nullptr; }
    std::shared_ptr<void> let_go() noexcept override {
        to_.heap = nullptr;
        return std::move(held_);
    }

    std::shared_ptr<lease> held_;
    closed_flag closed_;
    target to_;
};

class installed_chain final : public installed {
public:
    installed_chain(resources::resource_ptr top, PyObject* owner, PyObject* previous)
        : memory_(std::make_shared<kept>()) {
        memory_->top = std::move(top);
        memory_->owner = owner;
        memory_->previous = previous;
        Py_INCREF(owner);
        Py_XINCREF(previous);
    }

private:
    struct kept : chain_memory {
        PyObject* owner = nullptr;
        PyObject* previous = nullptr;
        kept() = default;
        ~kept() {  // with the GIL
            top.reset();
            Py_XDECREF(previous);
            Py_XDECREF(owner);
        }
        kept(const kept&) = delete;
        kept& operator=(const kept&) = delete;
    };

    bool is_closed() const noexcept override { return false; }
    bool is_empty() noexcept override { return memory_->sizes.is_empty(); }
    void* allocate(std::size_t nbytes, bool zero) noexcept override {
        return memory_->allocate(nbytes, zero);
    }
    bool reallocate(void* p, std::size_t nbytes, void*& q) noexcept override {
        return memory_->reallocate_known(p, nbytes, q);
    }
    bool free(void* p, std::size_t /*nbytes*/) noexcept override { return memory_->deallocate(p); }
    PyObject* owner_of(const void* p) noexcept override {
        return memory_->sizes.contains(p) ? memory_->owner : nullptr;
    }
    std::shared_ptr<void> let_go() noexcept override { return std::move(memory_); }

    std::shared_ptr<kept> memory_;
};

struct redirection {
    platform::mutex mutex;  // one installs, uninstalls or forgets at a time
    PyDataMem_Handler handler{};
    PyDataMem_Handler* saved = nullptr;  // NumPy's own
    std::atomic<installed*> newest{nullptr};
    std::atomic<installed*> current{nullptr};  // takes new requests

    void* allocate(std::size_t nbytes, bool zero) noexcept;
    void* reallocate(void* p, std::size_t nbytes) noexcept;
    void free(void* p, std::size_t nbytes) noexcept;
};

// Never destroyed: NumPy frees arrays until the process has ended.
redirection& the_redirection() noexcept {
    static auto* r = new redirection;
    return *r;
}

// Inside one for the length of one callback; empty if it is gone. While
// somebody decides whether it may go, visitors wait: it takes no system call.
class visit {
public:
    explicit visit(installed* a) noexcept {
        using phase = installed::phase;
        while (a != nullptr && a->state.load(std::memory_order_acquire) != phase::gone) {
            a->visitors.fetch_add(1, std::memory_order_seq_cst);
            if (a->state.load(std::memory_order_seq_cst) == phase::here) {
                here_ = a;
                return;
            }
            a->visitors.fetch_sub(1, std::memory_order_seq_cst);
            platform::cpu_pause();
        }
    }
    ~visit() {
        if (here_ != nullptr) {
            here_->visitors.fetch_sub(1, std::memory_order_release);
        }
    }
    visit(const visit&) = delete;
    visit& operator=(const visit&) = delete;
    installed* get() const noexcept { return here_; }

private:
    installed* here_ = nullptr;
};

void* redirection::allocate(std::size_t nbytes, bool zero) noexcept {
    const visit here(current.load(std::memory_order_acquire));
    if (here.get() != nullptr && !here.get()->is_closed()) {
        return here.get()->allocate(nbytes, zero);
    }
    const PyDataMemAllocator& a = saved->allocator;
    return zero ? a.calloc(a.ctx, nbytes, 1) : a.malloc(a.ctx, nbytes);
}

void* redirection::reallocate(void* p, std::size_t nbytes) noexcept {
    void* q = nullptr;
    for (auto* a = newest.load(std::memory_order_acquire); p != nullptr && a != nullptr;
         a = a->older) {
        const visit here(a);
        if (here.get() != nullptr && a->reallocate(p, nbytes, q)) {
            return q;
        }
    }
    return p == nullptr ? allocate(nbytes, false)
                        : saved->allocator.realloc(saved->allocator.ctx, p, nbytes);
}

void redirection::free(void* p, std::size_t nbytes) noexcept {
    for (auto* a = newest.load(std::memory_order_acquire); p != nullptr && a != nullptr;
         a = a->older) {
        const visit here(a);
        if (here.get() != nullptr && a->free(p, nbytes)) {
            return;
        }
    }
    saved->allocator.free(saved->allocator.ctx, p, nbytes);
}

// With the lock. False with a Python exception set.
bool find_default(redirection& r) {
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
    return true;
}

// With the lock, after find_default.
bool point_at(redirection& r, std::unique_ptr<installed> fresh) {
    installed* added = fresh.release();
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
    bool done = false;
    {
        platform::lock_guard guard(r.mutex);
        done = find_default(r) &&
               point_at(r, std::make_unique<installed_arena>(std::move(held), std::move(closed),
                                                             options, r.saved));
    }
    forget_retired();
    return done;
}

bool install_chain(resources::resource_ptr top, PyObject* owner, PyObject* previous) {
    redirection& r = the_redirection();
    bool done = false;
    {
        platform::lock_guard guard(r.mutex);
        done = find_default(r) &&
               point_at(r, std::make_unique<installed_chain>(std::move(top), owner, previous));
    }
    forget_retired();
    return done;
}

PyObject* owner_of_installed(const void* p) noexcept {
    for (auto* a = the_redirection().newest.load(std::memory_order_acquire); a != nullptr;
         a = a->older) {
        const visit here(a);
        PyObject* owner = here.get() != nullptr ? a->owner_of(p) : nullptr;
        if (owner != nullptr) {
            return owner;
        }
    }
    return nullptr;
}

const PyDataMem_Handler* saved_default() noexcept {
    redirection& r = the_redirection();
    platform::lock_guard guard(r.mutex);
    return r.saved;
}

void uninstall() {
    the_redirection().current.store(nullptr, std::memory_order_release);
    forget_retired();
}

void forget_retired() {
    using phase = installed::phase;
    redirection& r = the_redirection();
    std::vector<std::shared_ptr<void>> dropped;  // let go of outside the lock
    platform::lock_guard guard(r.mutex);
    installed* current = r.current.load(std::memory_order_acquire);
    if (current != nullptr && current->is_closed()) {
        r.current.store(nullptr, std::memory_order_release);
        current = nullptr;
    }
    for (auto* a = r.newest.load(std::memory_order_acquire); a != nullptr; a = a->older) {
        if (a == current || a->state.load(std::memory_order_acquire) != phase::here) {
            continue;
        }
        // First keep everybody out, then look whether anything of it is alive.
        a->state.store(phase::leaving, std::memory_order_seq_cst);
        if (a->visitors.load(std::memory_order_seq_cst) != 0 || !a->is_empty()) {
            a->state.store(phase::here, std::memory_order_seq_cst);
            continue;
        }
        a->state.store(phase::gone, std::memory_order_seq_cst);
        dropped.push_back(a->let_go());
    }
}

}  // namespace ndarena::numpy
