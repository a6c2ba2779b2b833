#include "segment/segment.hpp"

#include "segment/opener.hpp"

#include <cerrno>
#include <cstring>
#include <utility>

#include <unistd.h>

namespace ndarena::segment {

result<std::unique_ptr<segment>> segment::open(const segment_options& options) {
    if (auto ok = check_options(options); !ok) {
        return ok.err();
    }
    switch (options.kind) {
        case segment_kind::scratch:
            return opener::create_scratch(options);
        case segment_kind::buffer:
            return opener::over_buffer(options);
        case segment_kind::file:
        case segment_kind::shared:
            break;
    }
    const std::string path = options.kind == segment_kind::shared
                                 ? "/dev/shm/" + options.path
                                 : platform::absolute_path(options.path);
    switch (options.mode) {
        case open_mode::read:
            return opener::open_existing(options, path, false);
        case open_mode::read_write:
            return opener::open_existing(options, path, true);
        case open_mode::create: {
            // What it replaces is the file behind the links, and only a file.
            auto target = platform::regular_target(path);
            return target ? opener::create_named(options, *target) : target.err();
        }
        case open_mode::exclusive:
            return opener::create_named(options, path);
        case open_mode::append:
            break;
    }
    // Between the two steps others may create or remove it: try again.
    for (int attempt = 0;; ++attempt) {
        auto opened = opener::open_existing(options, path, true);
        if (opened || opened.err().code != errc::not_found || attempt >= 10) {
            return opened;
        }
        auto created = opener::create_named(options, path);
        if (created || created.err().code != errc::exists) {
            return created;
        }
    }
}

segment::~segment() {
    if (!unnamed_.temporary_name.empty()) {
        ::unlink(unnamed_.temporary_name.c_str());
    }
    if (fd_ && !descriptor_intact()) {
        (void)fd_.release();  // that number is somebody else's now
    }
    if (spare_ && !platform::is_same_file(spare_.get(), id_)) {
        (void)spare_.release();
    }
    if (opening_) {
        finish_opening();
    }
}

result<void> segment::publish() {
    if (!unnamed_.fd) {
        return {};
    }
    auto named = platform::give_name(unnamed_, path_, replaces_);
    if (named) {
        unnamed_.fd.reset();
    }
    return named;
}

result<std::uint64_t> segment::file_bytes() const {
    if (backing_ != backing::file || kind_ == segment_kind::buffer) {
        return mapped_size_;
    }
    return platform::file_size(fd_.get(), path_);
}

const root_page* current_root(const std::byte* base, const file_header& header) noexcept {
    const root_page* best = nullptr;
    for (const std::uint64_t offset : header.root_offset) {
        const auto* root = reinterpret_cast<const root_page*>(base + offset);
        if (root->magic == root_magic && root->uuid == header.uuid &&
            root->crc == base::crc32c(root, offsetof(root_page, crc)) &&
            (best == nullptr || root->sequence > best->sequence)) {
            best = root;
        }
    }
    return best;
}

void segment::write_root(const root_contents& contents) noexcept {
    const root_page* current = current_root(base_, header_);
    root_page next{};
    next.magic = root_magic;
    next.uuid = header_.uuid;
    next.sequence = current == nullptr ? 1 : current->sequence + 1;
    next.directory = contents.directory;
    next.watermark = contents.watermark;
    next.capacity = contents.capacity;
    next.epoch = contents.epoch;
    next.crc = base::crc32c(&next, offsetof(root_page, crc));
    const bool second = current == reinterpret_cast<root_page*>(base_ + header_.root_offset[0]);
    std::memcpy(base_ + header_.root_offset[second ? 1 : 0], &next, sizeof next);
}

bool segment::has_readers(std::uint64_t epoch) const noexcept {
    return !solo_ && fd_ && epoch != 0 &&
           platform::is_locked_by_other(fd_.get(), lock_base + file_base_ + epoch_lock_base, epoch);
}

std::uint64_t segment::newest_reader() const noexcept {
    const std::uint64_t first = lock_base + file_base_ + epoch_lock_base;
    std::uint64_t newest = 0;
    std::uint64_t at = 0;
    while (!solo_ && fd_ && platform::find_lock_of_other(fd_.get(), first + newest, at)) {
        newest = at - first + 1;
    }
    return newest;
}

result<void> segment::pin(std::uint64_t epoch) noexcept {
    if (solo_ || !fd_) {
        return {};
    }
    const auto answer =
        platform::try_share_byte(fd_.get(), lock_base + file_base_ + epoch_lock_base + epoch);
    if (answer != platform::lock_answer::taken) {
        return platform::system_error("cannot lock the arena for reading", errno, path_);
    }
    return {};
}

void segment::unpin(std::uint64_t epoch) noexcept {
    if (fd_ && descriptor_intact()) {
        platform::unlock_byte(fd_.get(), lock_base + file_base_ + epoch_lock_base + epoch);
    }
}

void segment::finish_opening() noexcept {
    if (opening_ && fd_) {
        platform::unlock_byte(fd_.get(), lock_base + file_base_ + open_lock_byte);
    }
    opening_ = false;
}

bool segment::is_alive(std::uint32_t slot) const noexcept {
    if (slot == slot_) {
        return true;
    }
    if (solo_ || slot >= geo_.slot_count) {
        return false;
    }
    // Without the descriptor nothing is known: nobody is taken for dead.
    return !descriptor_intact() ||
           platform::is_locked_by_other(fd_.get(), lock_base + file_base_ + slot, 1);
}

std::uint32_t segment::count_live_slots() const noexcept {
    if (solo_) {
        return 1;
    }
    std::uint32_t live = 0;
    for (std::uint32_t i = 0; i < geo_.slot_count; ++i) {
        const bool own = writable_ && i == slot_;
        if (own || (slot_at(i).state.load(std::memory_order_relaxed) != 0 &&
                    platform::is_locked_by_other(fd_.get(), lock_base + file_base_ + i, 1))) {
            ++live;
        }
    }
    return live;
}

bool segment::other_slots_alive() const noexcept {
    return platform::is_locked_by_other(fd_.get(), lock_base + file_base_, geo_.slot_count);
}

bool segment::descriptor_intact() const noexcept {
    return solo_ || (fd_ && platform::is_same_file(fd_.get(), id_));
}

void segment::close_descriptor() noexcept {
    fd_.reset();
    spare_.reset();
}

result<segment::claimed_slot> segment::claim_slot(int fd) noexcept {
    const std::uint64_t first = lock_base + file_base_;
    // Unused slots first; then those of the dead, whose rows need reaping.
    for (const bool take_used : {false, true}) {
        for (std::uint32_t i = 0; i < geo_.slot_count; ++i) {
            slot_entry& entry = slot_at(i);
            const bool used = entry.state.load(std::memory_order_acquire) != 0;
            if (used != take_used) {
                continue;
            }
            const auto answer = platform::try_lock_byte(fd, first + i);
            if (answer == platform::lock_answer::failed) {
                return platform::system_error(
                    "cannot lock the arena (are OFD locks supported here?)", errno, path_);
            }
            if (answer == platform::lock_answer::busy) {
                continue;
            }
            claimed_slot claimed;
            claimed.slot = i;
            // Whoever died here may have been past its first store.
            claimed.was_used = entry.state.load(std::memory_order_acquire) != 0;
            entry.incarnation += 1;
            entry.pid = platform::process_id();
            entry.claimed = platform::unix_time();
            claimed.owner_word = slot_lock::make_word(i, entry.incarnation);
            // After the byte is held: who looks then finds it.
            __atomic_fetch_add(&control().claims, 1, __ATOMIC_RELEASE);
            return claimed;
        }
    }
    return error{errc::no_memory, 0,
                 "all " + std::to_string(geo_.slot_count) +
                     " process slots of this arena are taken by live processes; close it in one",
                 path_};
}

platform::unique_fd segment::spare_descriptor() noexcept {
    if (!spare_ || !platform::is_same_file(spare_.get(), id_)) {
        spare_.release();  // whatever that number is now, it is not ours to close
        prepare_spare();
    }
    return std::move(spare_);
}

void segment::prepare_spare() noexcept {
    if (solo_ || spare_ || !fd_) {
        return;
    }
    auto copy = platform::reopen(fd_.get(), true);
    if (copy && platform::is_same_file(copy->get(), id_)) {
        spare_ = std::move(*copy);
    }
}

void segment::adopt_slot(claimed_slot claimed) noexcept {
    fd_ = std::move(claimed.fd);
    spare_.reset();
    slot_ = claimed.slot;
    owner_word_ = claimed.owner_word;
    slot_at(slot_).pid = platform::process_id();
}

bool segment::hold_dead_slot(std::uint32_t slot) noexcept {
    return descriptor_intact() &&
           platform::try_lock_byte(fd_.get(), lock_base + file_base_ + slot) ==
               platform::lock_answer::taken;
}

void segment::let_dead_slot_go(std::uint32_t slot) noexcept {
    if (descriptor_intact()) {
        platform::unlock_byte(fd_.get(), lock_base + file_base_ + slot);
    }
}

void segment::leave_slot() noexcept {
    if (!writable_) {
        return;
    }
    slot_at(slot_).state.store(0, std::memory_order_release);
    if (!solo_ && descriptor_intact()) {
        platform::unlock_byte(fd_.get(), lock_base + file_base_ + slot_);
    }
}

int segment::extend(std::uint64_t from, std::uint64_t to) noexcept {
    if (to <= from) {
        return 0;
    }
    if (backing_ != backing::file) {
        return commit_range(from, to - from);
    }
    if (!descriptor_intact()) {
        return EBADF;
    }
    const bool keep_size = has_fixed_size();
    const int rc = platform::allocate_range(fd_.get(), file_base_ + from, to - from, keep_size);
    if (rc == EOPNOTSUPP) {
        // No reservation on this file system: growing is all there is.
        return keep_size || ::ftruncate(fd_.get(), static_cast<off_t>(to)) == 0 ? 0 : errno;
    }
    if (rc != 0 && keep_size) {
        platform::punch_range(fd_.get(), file_base_ + from, to - from);
    } else if (rc != 0) {
        undo_extend(from);
    }
    return rc;
}

void segment::undo_extend(std::uint64_t watermark) noexcept {
    if (backing_ == backing::file && !has_fixed_size() && descriptor_intact()) {
        // ext4 keeps what a failed fallocate took until the file is cut.
        (void)!::ftruncate(fd_.get(), static_cast<off_t>(watermark));
    }
}

int segment::commit_range(std::uint64_t offset, std::uint64_t size) noexcept {
    switch (backing_) {
        case backing::file: {
            if (!descriptor_intact()) {
                return EBADF;
            }
            const int rc = platform::allocate_range(fd_.get(), file_base_ + offset, size, true);
            return rc == EOPNOTSUPP ? 0 : rc;
        }
        case backing::shared_memory: {
            const auto start = reinterpret_cast<std::uintptr_t>(base_) + offset;
            const auto first = base::align_down(start, platform::page_size);
            const auto last = base::align_up(start + size, platform::page_size);
            const int rc =
                platform::populate_for_write(reinterpret_cast<void*>(first), last - first);
            if (rc == 0 || rc == EINVAL) {
                return 0;  // EINVAL: an old kernel or a device mapping, nothing to commit
            }
            (void)discard_range(offset, size);  // what it got before it failed
            return rc == EFAULT ? ENOSPC : rc;
        }
        case backing::private_memory:
        case backing::opaque:
            return 0;
    }
    return EINVAL;
}

int segment::discard_range(std::uint64_t offset, std::uint64_t size) noexcept {
    if (backing_ == backing::file) {
        return descriptor_intact() ? platform::punch_range(fd_.get(), file_base_ + offset, size)
                                   : EBADF;
    }
    // Advice works on whole pages: those that lie inside, never a neighbour's.
    const auto base = reinterpret_cast<std::uintptr_t>(base_);
    const auto first = base::align_up(base + offset, platform::page_size);
    const auto last = base::align_down(base + offset + size, platform::page_size);
    if (backing_ == backing::opaque || last <= first) {
        return EOPNOTSUPP;
    }
    auto* address = reinterpret_cast<void*>(first);
    return backing_ == backing::shared_memory ? platform::remove_shared(address, last - first)
                                              : platform::discard_private(address, last - first);
}

result<void> segment::unlink() noexcept {
    if (kind_ == segment_kind::scratch || kind_ == segment_kind::buffer) {
        return error{errc::unsupported,
                     0,
                     kind_ == segment_kind::scratch
                         ? "a scratch arena has no name to remove; it goes with its last array"
                         : "an arena over a buffer has no name to remove; remove what the buffer "
                           "is over",
                     {}};
    }
    // Only this very file: the name may have been given to another since.
    auto now = platform::open_file(path_, false, true);
    if (!now) {
        return now.err();
    }
    if (!platform::is_same_file(now->get(), id_)) {
        return error{errc::not_found, ENOENT,
                     "the name now belongs to another file, which was left alone", path_};
    }
    if (::unlink(path_.c_str()) != 0) {
        return platform::system_error("cannot remove the arena", errno, path_);
    }
    return {};
}

result<void> check_control(const segment& seg) {
    // A copy first, the size after it: the file only grows ahead of the state.
    const control_page& shared = seg.control();
    const std::uint64_t capacity = __atomic_load_n(&shared.capacity, __ATOMIC_RELAXED);
    const std::uint64_t watermark = __atomic_load_n(&shared.watermark, __ATOMIC_ACQUIRE);
    const std::uint64_t chunks = __atomic_load_n(&shared.chunk_count, __ATOMIC_RELAXED);
    const std::uint64_t records = __atomic_load_n(&shared.record_bump, __ATOMIC_RELAXED);
    auto bytes = seg.file_bytes();
    if (!bytes) {
        return bytes.err();
    }
    const std::uint64_t first = seg.geo().data_offset() + seg.geo().chunk_bytes();
    const auto bad = [&](const char* what) {
        return error{errc::corruption, 0,
                     std::string("the control page (offset ") +
                         std::to_string(seg.geo().control_offset()) + ") is damaged: " + what +
                         "; restore the file from a copy",
                     seg.path()};
    };
    if (capacity > max_capacity || capacity < seg.geo().min_capacity() || capacity % granule != 0) {
        return bad("impossible capacity");
    }
    if (watermark < first || watermark > capacity || watermark % granule != 0) {
        return bad("impossible watermark");
    }
    if (watermark > *bytes) {
        return bad("the file is shorter than its committed part (it was truncated)");
    }
    if (seg.has_fixed_size() && capacity > *bytes) {
        return bad("the file is shorter than its capacity (it was truncated)");
    }
    if (chunks == 0 || chunks > max_chunks || chunks * seg.geo().chunk_bytes() > watermark ||
        records > chunks << seg.geo().chunk_shift) {
        return bad("impossible number of records");
    }
    // Read and written in one piece, and never beyond its entries: a process that
    // dies leaves no other number, and what another boot has left is made anew.
    const auto* undo = reinterpret_cast<const undo_page*>(seg.base() + seg.geo().undo_offset());
    if (undo->count.load(std::memory_order_relaxed) > undo_entry_count) {
        return bad("impossible number of entries in the undo log");
    }
    return {};
}

}  // namespace ndarena::segment
