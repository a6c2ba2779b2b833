// Opening, recovering, locking, leaving.
#include "heap/registry.hpp"

#include <algorithm>
#include <utility>

namespace ndarena::heap {
namespace {

constexpr std::uint64_t gibibyte = std::uint64_t{1} << 30;

// Warm freed pages kept for reuse by default: an eighth of the memory this
// process may use. On a disk at most a gibibyte: the kernel writes out dirty
// pages when there are many, and nobody will read these again.
std::uint64_t default_purge_budget(bool on_disk) noexcept {
    const std::uint64_t share = platform::memory_limit() / 8;
    return on_disk ? std::min(share, gibibyte) : share;
}

}  // namespace

heap::heap(std::unique_ptr<segment::segment> seg, std::shared_ptr<void> keep_alive)
    : keep_alive_(std::move(keep_alive)),
      seg_(std::move(seg)),
      cache_([] {
          auto memory =
              platform::mapped_region::map_private(segment::max_chunks * sizeof(std::uint64_t));
          return memory ? std::move(*memory) : platform::mapped_region();
      }()),
      table_(seg_->base(), seg_->mapped_size(), seg_->geo(),
             reinterpret_cast<std::uint64_t*>(cache_.data())),
      tlsf_(table_, reinterpret_cast<std::uintptr_t>(seg_->base()) % segment::max_alignment),
      lock_(&seg_->control().heap_lock, seg_.get()),
      commit_lock_(&seg_->control().commit_lock, seg_.get()),
      flush_lock_(&seg_->control().flush_lock, seg_.get()),
      directory_lock_(&seg_->control().directory_lock, seg_.get()) {}

heap::~heap() {
    if (void* made = companion_.load()) {
        destroy_companion_(made);
    }
    // What was refused is left as it is: its tables may be anything. A child that
    // was never told of its birth does not own the parent's slot.
    if (seg_->writable() && started_ && platform::fork_guard_intact() &&
        !poisoned_.load(std::memory_order_relaxed)) {
        // Names that only memory knows would go with the last process.
        if (wants_last_flush()) {
            (void)trim();  // a file at rest takes no more than it holds
            (void)flush();
        }
        // What was not freed goes with its process; nobody can reach it any more.
        (void)reap_row(seg_->slot());
        if (row_is_empty(seg_->slot()) && !poisoned_.load(std::memory_order_relaxed)) {
            seg_->retire();
            seg_->leave_slot();
        }
    }
    // Last: whoever opens the same memory waits for this.
    registry::instance().forget(this);
}

result<void> heap::start(find_survivors survivors) {
    if (cache_.data() == nullptr) {
        return error{errc::no_memory, 0, "no address space for the arena's tables", seg_->path()};
    }
    if (!seg_->writable()) {
        seg_->finish_opening();
        return {};
    }
    memory_backed_ = seg_->pages() == segment::backing::shared_memory ||
                     (seg_->pages() == segment::backing::file && seg_->fd() >= 0 &&
                      platform::is_memory_backed(seg_->fd()));
    purge_budget_ =
        default_purge_budget(seg_->pages() == segment::backing::file && !memory_backed_);
    can_purge_ = seg_->can_discard();
    if (seg_->must_reset()) {
        if (auto ok = reset(survivors); !ok) {
            return ok;
        }
    } else if (seg_->was_deserted()) {
        if (auto ok = recover(); !ok) {
            return ok;
        }
        (void)expire_tokens(default_grace_ms);
    } else {
        take_over_locks_of(seg_->slot());
        (void)reap_dead();
    }
    segment::slot_entry& own = seg_->slot_at(seg_->slot());
    if (own.state.load(std::memory_order_acquire) != 0 && !seg_->is_solo()) {
        (void)reap_row(seg_->slot());
    }
    own.state.store(1, std::memory_order_release);
    if (auto ok = seg_->publish(); !ok) {
        return ok;
    }
    seg_->finish_opening();
    seg_->prepare_spare();
    limit_kept();
    if (poisoned_.load(std::memory_order_relaxed)) {
        return error{errc::corruption, 0,
                     std::string("the arena's metadata is damaged: ") + poison_cause_.load() +
                         "; `ndarena check` says more",
                     seg_->path()};
    }
    started_ = true;
    return {};
}

// The volatile state is another instance's or none: what was stored is all there is.
result<void> heap::reset(find_survivors survivors) {
    const segment::root_page* current =
        seg_->is_pristine() ? nullptr : segment::current_root(seg_->base(), seg_->header());
    if (current == nullptr || current->directory == 0) {
        return format_volatile(current, {});
    }
    const segment::root_page root = *current;
    if (survivors == nullptr) {
        return error{errc::unsupported, 0, "the arena has names; open it through the directory",
                     seg_->path()};
    }
    auto kept = survivors(*seg_, root);
    if (!kept) {
        return kept.err();
    }
    return format_volatile(&root, std::move(*kept));
}

void heap::write_witness() noexcept {
    segment::control_page& c = seg_->control();
    const platform::instance_id id =
        seg_->is_solo() ? platform::instance_id{} : platform::instance_of(seg_->fd());
    c.boot = id.boot;
    c.device = id.device;
    c.inode = id.inode;
    c.inode_generation = id.generation;
    c.mount = id.mount;
}

// Nobody is alive in it: finish what the dead began, free what they held.
result<void> heap::recover() {
    segment::control_page& c = seg_->control();
    c.commit_lock.store(0, std::memory_order_relaxed);
    c.flush_lock.store(0, std::memory_order_relaxed);
    c.directory_lock.store(0, std::memory_order_relaxed);
    c.heap_lock.store(0, std::memory_order_relaxed);
    table_.roll_back();
    // What was played back may be damage too: judge it before acting on it.
    if (auto ok = segment::check_control(*seg_); !ok) {
        return ok;
    }
    seg_->undo_extend(c.watermark);
    finish_names();  // before the rows that hold what was named are cleared
    for (std::uint32_t slot = 0; slot < seg_->geo().slot_count; ++slot) {
        if (seg_->slot_at(slot).state.load(std::memory_order_relaxed) != 0) {
            (void)reap_row(slot);
            if (poisoned_.load(std::memory_order_relaxed)) {
                return {};  // leave the evidence; opening reports it
            }
            if (slot != seg_->slot()) {
                seg_->slot_at(slot).state.store(0, std::memory_order_release);
            }
        }
    }
    return {};
}

// A former owner of the slot may have died holding a lock. The caller holds the
// slot's byte, so to everybody else that owner would seem alive.
void heap::take_over_locks_of(std::uint32_t slot) noexcept {
    if (lock_.take_over_own(slot, seg_->owner_word())) {
        (void)recover_operation();
        segment::control_page& c = seg_->control();
        __atomic_store_n(&c.generation, c.generation | 1U, __ATOMIC_RELAXED);
        unlock_shared();
    }
    if (commit_lock_.take_over_own(slot, seg_->owner_word())) {
        seg_->undo_extend(seg_->control().watermark);
        commit_lock_.unlock();
    }
    if (flush_lock_.take_over_own(slot, seg_->owner_word())) {
        flush_lock_.unlock();
    }
    if (directory_lock_.take_over_own(slot, seg_->owner_word())) {
        directory_lock_.unlock();
    }
    // Its row still holds what it had just named.
    finish_names();
}

// Undoes what the former holder of the lock died in. A log that nobody can have
// written is left as it is: how much of it to believe, nobody knows.
bool heap::recover_operation() noexcept {
    const bool possible = table_.undo().is_possible();
    if (possible) {
        table_.roll_back();
    }
    if (!possible || !segment::check_control(*seg_)) {
        poison("the undo log of a dead process was damaged");
        return false;
    }
    return true;
}

bool heap::lock_shared(unsigned timeout_ms) noexcept {
    const auto outcome = lock_.lock(seg_->owner_word(), timeout_ms);
    if (outcome == segment::lock_outcome::timed_out) {
        return false;
    }
    segment::control_page& c = seg_->control();
    // Readers without a slot see an odd generation while a change is under way.
    __atomic_store_n(&c.generation, c.generation | 1U, __ATOMIC_RELAXED);
    base::order_stores();
    if ((outcome == segment::lock_outcome::inherited || !table_.undo().is_empty()) &&
        !recover_operation()) {
        unlock_shared();
        return false;
    }
    if (c.watermark > seg_->mapped_size()) {
        poison("another process has grown it beyond the addresses reserved here; reopen it");
        unlock_shared();
        return false;
    }
    return true;
}

error heap::not_locked() const {
    if (poisoned_.load(std::memory_order_relaxed)) {
        return damaged();
    }
    return {errc::lock_timeout, 0, "another process holds the arena's lock", seg_->path()};
}

void heap::unlock_shared() noexcept {
    segment::control_page& c = seg_->control();
    __atomic_store_n(&c.generation, c.generation + 1, __ATOMIC_RELEASE);
    lock_.unlock();
}

bool heap::settle() noexcept {
    if (table_.is_corrupt()) {
        table_.roll_back();
        table_.clear_corrupt();
        poison("an operation met a record that contradicts the others");
        return false;
    }
    table_.undo().commit();
    return true;
}

void heap::poison(const char* why) noexcept {
    poison_cause_ = why;
    poisoned_.store(true, std::memory_order_release);
}

bool heap::usable() noexcept {
    return seg_->writable() && platform::fork_guard_intact() &&
           !poisoned_.load(std::memory_order_relaxed);
}

result<void> heap::require_usable() {
    if (inherited_) {
        return error{errc::unsupported, 0,
                     "this process has a private copy of its parent's arena, which it can read",
                     seg_->path()};
    }
    if (poisoned_.load(std::memory_order_relaxed)) {
        return damaged();
    }
    if (!platform::fork_guard_intact()) {
        return error{errc::unsupported, 0,
                     "this process was made by clone or _Fork without the fork handlers; it cannot "
                     "use its parent's arena",
                     seg_->path()};
    }
    return {};
}

void* heap::companion(void* (*make)(heap&), void (*destroy)(void*) noexcept) {
    void* made = companion_.load(std::memory_order_acquire);
    if (made == nullptr) {
        void* fresh = make(*this);
        destroy_companion_ = destroy;
        if (companion_.compare_exchange_strong(made, fresh, std::memory_order_acq_rel)) {
            return fresh;
        }
        destroy(fresh);  // another thread was faster
    }
    return made;
}

bool heap::contains(const void* address) const noexcept {
    const auto* p = static_cast<const std::byte*>(address);
    if (p >= seg_->base() && p < seg_->base() + seg_->mapped_size()) {
        return true;
    }
    return next() != nullptr && next()->contains(address);
}

result<void> heap::grow(std::uint64_t capacity) {
    capacity = base::align_up(capacity, segment::format_page);
    if (!seg_->writable()) {
        return error{errc::read_only, 0, "the arena was opened for reading (mode 'r')",
                     seg_->path()};
    }
    platform::lock_guard guard(mutex_);
    segment::control_page& c = seg_->control();
    if (!lock_shared()) {
        return not_locked();
    }
    error failure;
    if (capacity > c.capacity) {
        if (seg_->has_fixed_size()) {
            failure = {errc::invalid, 0, "an arena cannot grow beyond the buffer it was made in",
                       seg_->path()};
        } else if (capacity > seg_->mapped_size()) {
            failure = {errc::no_memory, 0,
                       "this process has reserved " + base::human_size(seg_->mapped_size()) +
                           " of addresses for the arena; close it everywhere and reopen it with "
                           "the larger capacity",
                       seg_->path()};
        } else {
            table_.undo().set(c.capacity, capacity);
            if (settle()) {
                limit_kept();
            }
        }
    }
    unlock_shared();
    if (failure.code != errc::ok) {
        return failure;
    }
    return {};
}

std::uint64_t heap::capacity() noexcept {
    return __atomic_load_n(&seg_->control().capacity, __ATOMIC_RELAXED);
}

}  // namespace ndarena::heap
