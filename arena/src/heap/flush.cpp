// Making names durable: two barriers and a root page between them.
//
// Everything that the names of this moment lead to reaches the disk first, then
// the root page that is not current is overwritten, then that reaches the disk.
// After a power failure one of the two pages is whole, and all it leads to is.
#include "heap/heap.hpp"

#include <cerrno>

namespace ndarena::heap {

bool heap::has_unflushed_names() const noexcept {
    const segment::control_page& c = seg_->control();
    return seg_->writable() && is_durable() && !inherited_ &&
           __atomic_load_n(&c.epoch, __ATOMIC_ACQUIRE) !=
               __atomic_load_n(&c.durable, __ATOMIC_ACQUIRE);
}

bool heap::wants_last_flush() const noexcept {
    return seg_->writable() && is_durable() && !inherited_ &&
           !forgoes_flush_.load(std::memory_order_relaxed) &&
           (has_unflushed_names() || seg_->control().directory_root != 0) &&
           !seg_->other_slots_alive();
}

// Once an error was reported, the kernel may have dropped pages that never
// reached the disk and call them clean: nothing later can be trusted.
error heap::flush_failed(int os_errno) const {
    return platform::system_error(
        "flush failed: the device did not take the data, and no later flush can be trusted. What "
        "the last good flush stored is safe; copy what is in memory to another device "
        "(arena.export, ndarena compact)",
        os_errno, seg_->path());
}

// Stores [begin, end) of the segment; a process's first barrier stores all of the
// file, its size and header included.
int heap::barrier(std::uint64_t begin, std::uint64_t end) noexcept {
    if constexpr (base::planted(base::bug::flush_async)) {
        return platform::start_writing(seg_->base() + begin, end - begin);
    }
    return name_is_synced_ ? platform::sync_mapped(seg_->base() + begin, end - begin)
                           : platform::sync_file(seg_->fd());
}

result<void> heap::flush() {
    if (!seg_->writable()) {
        return error{errc::read_only, 0, "the arena was opened for reading (mode 'r')",
                     seg_->path()};
    }
    if (!is_durable() || inherited_) {
        return {};  // nothing outlives the memory it is in
    }
    if (poisoned_.load(std::memory_order_relaxed)) {
        return damaged();
    }
    if (!seg_->descriptor_intact()) {
        return error{errc::os, EBADF,
                     "the arena's file descriptor was closed by other code in this process",
                     seg_->path()};
    }
    segment::control_page& c = seg_->control();
    // One that starts from here on covers this call.
    const std::uint64_t enough = __atomic_load_n(&c.flush_started, __ATOMIC_ACQUIRE) + 1;
    platform::lock_guard guard(flushing_);
    if (flush_lock_.lock(seg_->owner_word()) == segment::lock_outcome::timed_out) {
        return error{errc::lock_timeout, 0, "another process is flushing the arena", seg_->path()};
    }
    result<void> done;
    if (const int failed = static_cast<int>(__atomic_load_n(&c.durable_error, __ATOMIC_ACQUIRE))) {
        done = flush_failed(failed);
    } else if (__atomic_load_n(&c.flush_done, __ATOMIC_ACQUIRE) < enough) {
        done = flush_alone();
    }
    flush_lock_.unlock();
    if (done) {
        (void)release_dropped();
    }
    return done;
}

// Under the flush lock.
result<void> heap::flush_alone() {
    segment::control_page& c = seg_->control();
    const std::uint64_t number = c.flush_started + 1;
    __atomic_store_n(&c.flush_started, number, __ATOMIC_RELEASE);
    finish_names();
    segment::root_contents next;
    {
        platform::lock_guard guard(mutex_);
        if (!lock_shared()) {
            return not_locked();
        }
        next = {c.directory_root, c.watermark, c.capacity, c.epoch};
        // From here on a block that these names lead to is not reused until the
        // names that replace them are stored.
        table_.undo().set(c.snapshot_serial, c.serial);
        const bool ok = settle();
        unlock_shared();
        if (!ok) {
            return damaged();
        }
    }
    // The names' blocks end before the watermark of their moment. What lies between
    // the roots and the data is volatile, and not waited for.
    const segment::file_header& header = seg_->header();
    int rc = base::planted(base::bug::flush_one_barrier)
                 ? 0
                 : barrier(header.data_offset, next.watermark);
    if (rc == 0 && !name_is_synced_) {
        rc = platform::sync_directory_of(seg_->path());
        name_is_synced_ = rc == 0;
    }
    if (rc == 0) {
        seg_->write_root(next);
        rc = barrier(0, header.control_offset);
    }
    if (rc != 0) {
        __atomic_store_n(&c.durable_error, static_cast<std::uint64_t>(rc), __ATOMIC_RELEASE);
        return flush_failed(rc);
    }
    platform::lock_guard guard(mutex_);
    if (!lock_shared()) {
        return not_locked();
    }
    table_.undo().note(&c.directory_root);
    __atomic_store_n(&c.durable, next.epoch, __ATOMIC_RELEASE);
    const bool ok = settle();
    unlock_shared();
    if (!ok) {
        return damaged();
    }
    __atomic_store_n(&c.flush_done, number, __ATOMIC_RELEASE);
    return {};
}

}  // namespace ndarena::heap
