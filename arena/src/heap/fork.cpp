// A heap's way through fork.
//
// Shareable arenas: the child gets a slot and a row of its own before it
// exists, so no block it inherits can be reused while it lives.
// Private arenas on a file (scratch): the same, and the child sees the data
// through a private view, so its writes reach nobody; it allocates elsewhere.
// Anonymous shared buffers: the child gets a private copy of everything and is
// from then on alone with it; the parent waits until the copy is whole.
// Private memory needs nothing: fork has copied it.
#include "heap/heap.hpp"

#include <algorithm>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

namespace ndarena::heap {
namespace {

constexpr int copy_timeout_ms = 30000;

bool is_anonymous_shared(const segment::segment& seg) noexcept {
    return seg.is_solo() && seg.pages() == segment::backing::shared_memory;
}

}  // namespace

// A slot for the child, its row filled from this process's live blocks.
void heap::claim_for_child() noexcept {
    auto fd = seg_->spare_descriptor();
    if (!fd) {
        return;
    }
    auto claimed = seg_->claim_slot(fd.get());
    if (!claimed) {
        return;
    }
    child_slot_ = std::move(*claimed);
    child_slot_.fd = std::move(fd);
    take_over_locks_of(child_slot_.slot);
    if (child_slot_.was_used) {
        (void)reap_row(child_slot_.slot);
    }
    seg_->slot_at(child_slot_.slot).state.store(1, std::memory_order_release);
}

void heap::before_fork() noexcept NDARENA_NO_ANALYSIS {
    fork_ranges_.clear();
    child_slot_ = {};
    const bool live = seg_->writable() && usable();
    fork_live_ = false;
    if (live && !seg_->is_solo()) {
        claim_for_child();
    }
    if (live && is_anonymous_shared(*seg_) && ::pipe2(fork_pipe_, O_CLOEXEC) != 0) {
        fork_pipe_[0] = fork_pipe_[1] = -1;
    }
    mutex_.lock();  // until after the fork: no thread is inside the heap
    if (!live || !lock_shared()) {
        child_slot_ = {};
        return;
    }
    give_back_kept(platform::monotonic_milliseconds());
    if (child_slot_.slot != segment::nil) {
        auto& undo = table_.undo();
        map_.for_each([&](map_entry& entry) {
            publish_locked(entry);
            tlsf::block_record& r = table_.at(entry.record, tlsf::block_state::allocated);
            std::uint64_t* word = table_.row_word(child_slot_.slot, entry.record);
            undo.set(*word, *word | tlsf::block_table::row_bit(entry.record));
            undo.set(r.holders, r.holders + 1);
            (void)settle();
        });
    }
    const std::uint64_t data = seg_->geo().data_offset();
    if (seg_->kind() == segment_kind::scratch && !inherited_) {
        // Everything but the tables becomes private in the child.
        std::vector<platform::byte_range> tables;
        table_.for_each_table([&](std::uint64_t offset, std::uint64_t size) {
            tables.push_back({offset, size});
        });
        std::sort(tables.begin(), tables.end(),
                  [](const auto& a, const auto& b) { return a.offset < b.offset; });
        std::uint64_t at = data;
        for (const auto& t : tables) {
            if (t.offset > at) {
                fork_ranges_.push_back({at, t.offset - at});
            }
            at = std::max(at, t.offset + t.size);
        }
        if (seg_->mapped_size() > at) {
            fork_ranges_.push_back({at, seg_->mapped_size() - at});
        }
    } else if (is_anonymous_shared(*seg_)) {
        fork_ranges_.push_back({0, data});
        std::uint32_t index = table_.control().first_block;
        std::uint64_t most = table_.control().record_bump;
        while (index != tlsf::nil && !table_.is_corrupt() && most-- != 0) {
            const tlsf::block_record& r = table_.block_at(index);
            if (r.state != tlsf::block_state::free) {
                auto& last = fork_ranges_.back();
                if (last.offset + last.size == r.offset) {
                    last.size += r.size;
                } else {
                    fork_ranges_.push_back({r.offset, r.size});
                }
            }
            index = r.next_physical;
        }
        (void)settle();
    }
    fork_live_ = true;
    unlock_shared();
}

void heap::after_fork_in_parent() noexcept NDARENA_NO_ANALYSIS {
    child_slot_ = {};  // the child's descriptor keeps the byte, or nothing does
    if (fork_pipe_[0] >= 0) {
        ::close(fork_pipe_[1]);
        struct pollfd waiting {
            fork_pipe_[0], POLLIN, 0
        };
        while (::poll(&waiting, 1, copy_timeout_ms) < 0 && errno == EINTR) {
        }
        ::close(fork_pipe_[0]);
        fork_pipe_[0] = fork_pipe_[1] = -1;
    }
    mutex_.unlock();
    if (seg_->writable()) {
        seg_->prepare_spare();
    }
}

void heap::after_fork_in_child() noexcept NDARENA_NO_ANALYSIS {
    deferred_.clear();
    kept_.forget();
    reaping_.reset();
    tables_.reset();
    flushing_.reset();
    purges_done_.store(purges_begun_.load());  // those under way are the parent's
    if (seg_->writable() && !fork_live_) {
        poison("the arena could not be made ready for this fork child");
        seg_->close_descriptor();
    } else if (seg_->writable() && usable()) {
        privatise_in_child();
    }
    if (fork_pipe_[1] >= 0) {
        (void)!::write(fork_pipe_[1], "", 1);
        ::close(fork_pipe_[0]);
        ::close(fork_pipe_[1]);
        fork_pipe_[0] = fork_pipe_[1] = -1;
    }
    mutex_.reset();
}

void heap::privatise_in_child() noexcept {
    if (seg_->is_solo()) {
        if (seg_->pages() == segment::backing::opaque) {
            poison("the arena's memory belongs to the parent process alone");
            return;
        }
        if (is_anonymous_shared(*seg_)) {
            // The pages at the edges may hold other people's bytes too.
            const auto base = reinterpret_cast<std::uintptr_t>(seg_->base());
            const auto first = base::align_down(base, platform::page_size);
            const std::uint64_t lead = base - first;
            const std::uint64_t size =
                base::align_up(lead + seg_->mapped_size(), platform::page_size);
            for (auto& range : fork_ranges_) {
                range.offset += lead;
            }
            if (lead != 0) {
                fork_ranges_.push_back({0, lead});
            }
            if (size > lead + seg_->mapped_size()) {
                fork_ranges_.push_back(
                    {lead + seg_->mapped_size(), size - lead - seg_->mapped_size()});
            }
            if (platform::make_private_copy(reinterpret_cast<void*>(first), size,
                                            fork_ranges_.data(), fork_ranges_.size(),
                                            lead + seg_->geo().control_offset() +
                                                offsetof(segment::control_page, generation)) != 0) {
                poison("no private copy of the parent's arena could be made in time");
                return;
            }
            seg_->become_private_memory();
        }
        // Alone with a private copy: locks that other threads held are void.
        segment::control_page& c = seg_->control();
        c.heap_lock.store(0, std::memory_order_relaxed);
        c.commit_lock.store(0, std::memory_order_relaxed);
        seg_->slot_at(0).pid = platform::process_id();
        return;
    }
    const bool has_slot = child_slot_.slot != segment::nil;
    if (has_slot) {
        seg_->adopt_slot(std::move(child_slot_));
        child_slot_ = {};
    }
    if (seg_->kind() == segment_kind::scratch) {
        auto source = seg_->mapping_source();
        for (const auto& range : fork_ranges_) {
            if (!source || platform::make_private(seg_->base() + range.offset, range.size,
                                                  source->get(), range.offset) != 0) {
                poison("a private view of the parent's arena could not be mapped");
                return;
            }
        }
        inherited_ = true;
        limit_kept();
        table_.set_page_hook(
            [](void* self, std::uint64_t offset, std::uint64_t size) noexcept {
                static_cast<heap*>(self)->share_page(offset, size);
            },
            this);
    }
    if (!has_slot) {
        // The parent's descriptor holds the parent's slot: not here.
        seg_->close_descriptor();
        poison("no process slot could be claimed for this fork child");
        return;
    }
    seg_->prepare_spare();
}

// Tables made after the fork lie in what this child sees privately.
void heap::share_page(std::uint64_t offset, std::uint64_t size) noexcept {
    auto source = seg_->mapping_source();
    if (!source || platform::make_shared(seg_->base() + offset, size, source->get(), offset) != 0) {
        poison("the arena's tables could not be mapped");
    }
}

// Where an inherited private arena's process allocates: a scratch arena of
// its own beside the parent's, made at the first request.
heap* heap::successor() noexcept {
    if (next() != nullptr || poisoned_.load(std::memory_order_relaxed)) {
        return next();
    }
    segment_options options;
    options.kind = segment_kind::scratch;
    options.path = seg_->path();
    options.capacity = capacity();
    options.alignment = alignment();
    auto opened = open(options);
    platform::lock_guard guard(mutex_);
    if (opened && next() == nullptr) {
        successor_ = *opened;
        next_.store(successor_.get(), std::memory_order_release);
    }
    return next();
}

}  // namespace ndarena::heap
