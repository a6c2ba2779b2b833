#include "heap/registry.hpp"

#include <algorithm>

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

namespace ndarena::heap {

registry& registry::instance() noexcept {
    static auto* the_registry = new registry;
    return *the_registry;
}

registry::registry() {
    platform::arm_fork_guard();
    (void)::pthread_atfork(&before_fork, &after_fork_in_parent, &after_fork_in_child);
    (void)std::atexit(&at_exit);
}

result<std::shared_ptr<heap>> heap::open(const segment_options& options, find_survivors survivors) {
    return registry::instance().open(options, survivors);
}

std::shared_ptr<heap> heap::find(const void* address) noexcept {
    return registry::instance().find(address);
}

std::shared_ptr<heap> heap::find_session(std::uint64_t session) noexcept {
    return registry::instance().find_session(session);
}

result<std::shared_ptr<heap>> registry::open(const segment_options& options,
                                             find_survivors survivors) {
    platform::lock_guard guard(opening_);
    error conflict;
    auto same = find_same(options, conflict);
    parked_.clear();
    if (same) {
        if (options.alignment != 0 && options.alignment != same->alignment()) {
            return error{errc::invalid, 0,
                         "the arena is open with alignment " + std::to_string(same->alignment()) +
                             ", not " + std::to_string(options.alignment),
                         options.path};
        }
        if (options.capacity > same->capacity()) {
            if (auto ok = same->grow(options.capacity); !ok) {
                return ok.err();
            }
        }
        return same;
    }
    if (conflict.code != errc::ok) {
        return conflict;
    }
    std::shared_ptr<heap> opened;
    for (int attempt = 0; !opened; ++attempt) {
        auto seg = segment::segment::open(options);
        if (!seg) {
            return seg.err();
        }
        auto started = std::make_shared<heap>(std::move(*seg), options.keep_alive);
        if (auto ok = started->start(survivors); ok) {
            opened = std::move(started);
        } else if (ok.err().code != errc::exists || options.mode != open_mode::append ||
                   attempt >= 10) {
            return ok.err();
        }
        // Mode a, and another process has just created it: open that one.
    }
    if (opened->seg().writable() && options.kind != segment_kind::buffer &&
        options.capacity > opened->capacity()) {
        if (auto ok = opened->grow(options.capacity); !ok) {
            return ok.err();
        }
    }
    platform::lock_guard entries_guard(mutex_);
    entries_.push_back({opened.get(), opened});
    return opened;
}

// What this process already has open: by file identity, or by address.
std::shared_ptr<heap> registry::find_same(const segment_options& options, error& conflict) {
    const bool creates = options.mode == open_mode::create || options.mode == open_mode::exclusive;
    struct stat st {};
    switch (options.kind) {
        case segment_kind::scratch:
            return nullptr;
        case segment_kind::buffer:
            break;
        case segment_kind::file:
        case segment_kind::shared: {
            const std::string path =
                options.kind == segment_kind::shared ? "/dev/shm/" + options.path : options.path;
            if (creates || ::stat(path.c_str(), &st) != 0) {
                return nullptr;
            }
            break;
        }
    }
    const auto* first = static_cast<const std::byte*>(options.buffer);
    const auto* last = first + options.buffer_size;
    // One that is in its destructor still uses the memory and the slot: wait.
    for (;; ::usleep(200)) {
        platform::lock_guard guard(mutex_);
        const heap* found = nullptr;
        std::shared_ptr<heap> same;
        for (const entry& e : entries_) {
            const segment::segment& seg = e.raw->seg();
            const bool matches = options.kind == segment_kind::buffer
                                     ? first < seg.base() + seg.mapped_size() && seg.base() < last
                                     : seg.kind() != segment_kind::buffer &&
                                           seg.id().device == st.st_dev &&
                                           seg.id().inode == st.st_ino &&
                                           seg.writable() == (options.mode != open_mode::read);
            if (matches) {
                found = e.raw;
                same = e.weak.lock();
                break;
            }
        }
        if (found == nullptr) {
            return nullptr;
        }
        if (!same) {
            continue;
        }
        const segment::segment& seg = found->seg();
        if (options.kind != segment_kind::buffer ||
            (!options.format_buffer && seg.kind() == segment_kind::buffer && seg.base() >= first &&
             seg.base() < first + segment::granule && seg.base() + seg.mapped_size() <= last)) {
            return same;
        }
        conflict = {errc::invalid,
                    0,
                    "part of this buffer is in use by another arena with live arrays",
                    {}};
        // Not the last reference: its destructor takes the lock that is held.
        parked_.push_back(std::move(same));
        return nullptr;
    }
}

std::shared_ptr<heap> registry::find(const void* address) noexcept {
    platform::lock_guard guard(mutex_);
    for (const entry& e : entries_) {
        // The raw pointer is good while it is registered: see ~heap.
        if (e.raw->contains(address)) {
            if (auto h = e.weak.lock()) {
                return h;
            }
        }
    }
    return nullptr;
}

// All heaps, to be let go of outside the lock: the last one to do so runs the
// destructor, which takes it.
std::vector<std::shared_ptr<heap>> registry::everyone() noexcept {
    std::vector<std::shared_ptr<heap>> heaps;
    platform::lock_guard guard(mutex_);
    for (const entry& e : entries_) {
        if (auto h = e.weak.lock()) {
            heaps.push_back(std::move(h));
        }
    }
    return heaps;
}

std::shared_ptr<heap> registry::find_session(std::uint64_t session) noexcept {
    for (auto& h : everyone()) {
        const auto kind = h->seg().kind();
        if ((kind == segment_kind::file || kind == segment_kind::shared) && h->seg().writable() &&
            h->session() == session) {
            return h;
        }
    }
    return nullptr;
}

// The process ends while arrays still live: the names of transient segments
// must not wait for them. Other threads may be anywhere, so nothing is waited for.
void registry::at_exit() noexcept NDARENA_NO_ANALYSIS {
    registry& all = instance();
    if (!platform::fork_guard_intact() || !all.mutex_.try_lock()) {
        return;
    }
    for (const entry& e : all.entries_) {
        if (e.raw->seg().is_transient()) {
            e.raw->seg_->retire();
        }
        if (e.raw->wants_last_flush()) {
            (void)e.raw->flush();
        }
    }
    all.mutex_.unlock();
    segment::sweep_left_behind(heap::default_grace_ms);
}

void registry::forget(const heap* h) noexcept {
    platform::lock_guard guard(mutex_);
    entries_.erase(std::remove_if(entries_.begin(), entries_.end(),
                                  [h](const entry& e) { return e.raw == h; }),
                   entries_.end());
}

// The handlers lock in one function and unlock in another: outside what the
// thread-safety analysis follows.
void registry::before_fork() noexcept NDARENA_NO_ANALYSIS {
    registry& all = instance();
    all.opening_.lock();
    all.forking_ = all.everyone();
    for (const auto& h : all.forking_) {
        h->before_fork();
    }
    all.mutex_.lock();
}

void registry::after_fork_in_parent() noexcept NDARENA_NO_ANALYSIS {
    registry& all = instance();
    all.mutex_.unlock();
    for (const auto& h : all.forking_) {
        h->after_fork_in_parent();
    }
    std::vector<std::shared_ptr<heap>> done;
    done.swap(all.forking_);
    all.opening_.unlock();
    // `done` goes last: a heap destroyed here takes the registry's lock.
}

void registry::after_fork_in_child() noexcept NDARENA_NO_ANALYSIS {
    registry& all = instance();
    platform::arm_fork_guard();
    all.mutex_.reset();
    for (const auto& h : all.forking_) {
        h->after_fork_in_child();
    }
    std::vector<std::shared_ptr<heap>> done;
    done.swap(all.forking_);
    all.opening_.reset();
}

}  // namespace ndarena::heap
