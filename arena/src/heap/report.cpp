// Looking at a heap: counters, invariants, the map of blocks.
#include "heap/heap.hpp"

#include <algorithm>
#include <new>

#include <unistd.h>

namespace ndarena::heap {
namespace {

constexpr std::size_t most_findings = 100;

view_state view_of(const tlsf::block_record& r) noexcept {
    switch (r.state) {
        case tlsf::block_state::allocated:
            return view_state::allocated;
        case tlsf::block_state::metadata:
            return view_state::metadata;
        case tlsf::block_state::free:
            if (r.payload != 0) {
                return view_state::warm;
            }
            return (r.flags & tlsf::holes) != 0 ? view_state::punched : view_state::pristine;
        case tlsf::block_state::punching:
        case tlsf::block_state::unused:
            break;
    }
    return view_state::moving;
}

}  // namespace

// A reader of state that another instance wrote: nothing to go by, until a
// writer has come and made it anew.
bool heap::state_is_void() const noexcept {
    return !seg_->writable() && seg_->must_reset() && !seg_->other_slots_alive();
}

// Runs `read` on a state that nobody is changing: under the locks, or, without
// a slot, between two changes. False if the arena would not hold still.
bool heap::read_steadily(void (*read)(heap&, void*), void* argument) {
    platform::lock_guard guard(mutex_);
    if (cache_.data() == nullptr || state_is_void()) {
        return false;
    }
    if (seg_->writable()) {
        if (poisoned_.load(std::memory_order_relaxed) || !platform::fork_guard_intact() ||
            !lock_shared()) {
            return false;
        }
        give_back_kept(platform::monotonic_milliseconds());
        bool done = true;
        try {
            read(*this, argument);
        } catch (const std::bad_alloc&) {
            done = false;
        }
        table_.clear_corrupt();
        unlock_shared();
        return done;
    }
    static constexpr int tries = 200;
    const segment::control_page& c = seg_->control();
    for (int i = 0; i < tries; ++i) {
        const std::uint64_t before = __atomic_load_n(&c.generation, __ATOMIC_ACQUIRE);
        if ((before & 1U) == 0 || !seg_->other_slots_alive()) {
            read(*this, argument);
            table_.clear_corrupt();
            base::order_stores();
            if (__atomic_load_n(&c.generation, __ATOMIC_ACQUIRE) == before) {
                return true;
            }
        }
        ::usleep(1000);
    }
    return false;
}

statistics heap::stats() noexcept {
    statistics s;
    s.capacity = capacity();
    const bool steady = read_steadily(
        [](heap& h, void* out) {
            auto& st = *static_cast<statistics*>(out);
            const segment::control_page& c = h.seg_->control();
            st.committed = c.watermark;
            st.allocated = c.allocated;
            st.peak_allocated = c.peak_allocated;
            st.n_blocks = c.allocated_count;
            st.n_free_blocks = c.free_count;
            st.oom_count = c.refused;
            st.in_transit = c.in_transit;
            st.metadata = c.metadata + h.seg_->geo().data_offset();
            st.warm_free = c.purge_bytes;
            const std::uint64_t ceiling = std::min(c.capacity, h.seg_->mapped_size());
            const std::uint64_t ahead = ceiling > c.watermark ? ceiling - c.watermark : 0;
            const tlsf::block_record& last = h.table_.block_at(c.last_block);
            const std::uint64_t end =
                ahead + (last.state == tlsf::block_state::free ? last.size : 0);
            st.largest_free = std::max(h.tlsf_.largest_free(), end);
        },
        &s);
    if (!steady) {
        return s;
    }
    s.resident = platform::resident_bytes(seg_->base(), std::min(s.committed, seg_->mapped_size()));
    s.processes = seg_->count_live_slots();
    return s;
}

std::vector<std::string> heap::check() {
    if (state_is_void()) {
        return {};  // volatile state of another instance: it will be made anew
    }
    if (!seg_->writable() && !table_.undo().is_empty() && table_.undo().is_possible() &&
        !seg_->other_slots_alive()) {
        return {
            "a process died in the middle of an operation; opening the arena for writing "
            "finishes it (ndarena check --repair)"};
    }
    struct job {
        std::vector<std::string> findings;
    } report;
    const bool steady = read_steadily(
        [](heap& h, void* out) {
            auto& job_ref = *static_cast<job*>(out);
            if (auto sane = segment::check_control(*h.seg_); !sane) {
                job_ref.findings = {sane.err().message};  // no table to go by
                return;
            }
            job_ref.findings = h.tlsf_.check(most_findings);
            h.check_rows(job_ref.findings);
        },
        &report);
    if (poisoned_.load(std::memory_order_acquire)) {
        return {std::string("this process no longer uses the arena: ") + poison_cause_.load()};
    }
    if (!steady) {
        return {"the arena's lock was not to be had; a process may be stopped while it holds it"};
    }
    return std::move(report.findings);
}

// Every block's holder count is the number of rows and tokens that hold it; a
// row has no bits of records that were never in use, which would hold what
// comes there.
void heap::check_rows(std::vector<std::string>& findings) {
    const std::uint32_t records = table_.control().record_bump;
    const std::uint64_t room = std::uint64_t{table_.control().chunk_count}
                               << seg_->geo().chunk_shift;
    const std::uint32_t slots = seg_->geo().slot_count;
    std::vector<std::uint32_t> holders(records, 0);
    for (std::uint32_t slot = 0; slot < slots; ++slot) {
        for (std::uint64_t first = 0; first < room && findings.size() < most_findings;
             first += 64) {
            std::uint64_t word = *table_.row_word(slot, static_cast<std::uint32_t>(first));
            if (word != 0 && seg_->slot_at(slot).state.load(std::memory_order_relaxed) == 0) {
                findings.push_back("the row of unused slot " + std::to_string(slot) +
                                   " holds blocks");
            }
            for (; word != 0; word &= word - 1) {
                const std::uint64_t index = first + base::lowest_bit(word);
                if (index < records) {
                    ++holders[index];
                } else if (findings.size() < most_findings) {
                    findings.push_back("the row of slot " + std::to_string(slot) +
                                       " holds record " + std::to_string(index) +
                                       ", which was never in use");
                }
            }
        }
    }
    count_tokens(holders, findings);
    for (std::uint32_t i = 0; i < records && findings.size() < most_findings; ++i) {
        const tlsf::block_record& r = table_.at(i);
        const std::uint32_t expected = r.state == tlsf::block_state::unused ? 0 : r.holders;
        if (r.state == tlsf::block_state::allocated) {
            holders[i] += r.prev_purge;  // the directory knows whether these are right
        }
        if (holders[i] != expected) {
            findings.push_back("block " + std::to_string(i) + " counts " +
                               std::to_string(expected) + " holders, rows, tokens and names show " +
                               std::to_string(holders[i]));
        }
        if (r.state == tlsf::block_state::allocated && r.holders == 0) {
            findings.push_back("block " + std::to_string(i) + " is allocated but nobody holds it");
        }
    }
}

void heap::count_tokens(std::vector<std::uint32_t>& holders, std::vector<std::string>& findings) {
    const segment::control_page& c = table_.control();
    if (c.transit_bump > seg_->geo().transit_count) {
        findings.emplace_back("more tokens are in use than the table has");
        return;
    }
    std::uint32_t flying = 0;
    std::uint32_t unused = 0;
    for (std::uint32_t i = 0; i < c.transit_bump; ++i) {
        const segment::transit_token& t = token_at(i);
        if (t.state == 0) {
            ++unused;
        } else if (t.state != 1 || t.record >= holders.size() || t.readers == 0) {
            findings.push_back("token " + std::to_string(i) + " is damaged");
        } else {
            ++flying;
            ++holders[t.record];
        }
    }
    std::uint32_t listed = 0;
    for (std::uint32_t i = c.transit_free; i != tlsf::nil; i = token_at(i).record) {
        if (i >= c.transit_bump || token_at(i).state != 0 || ++listed > unused) {
            findings.emplace_back("the list of unused tokens leads to one that is used");
            return;
        }
    }
    if (flying != c.in_transit || listed != unused) {
        findings.push_back(std::to_string(c.in_transit) + " tokens are counted, " +
                           std::to_string(flying) + " are in flight and " +
                           std::to_string(unused - listed) + " are lost");
    }
}

std::vector<block_view> heap::blocks() {
    std::vector<block_view> views;
    (void)read_steadily(
        [](heap& h, void* out) {
            auto& list = *static_cast<std::vector<block_view>*>(out);
            list.clear();
            if (!segment::check_control(*h.seg_)) {
                return;
            }
            std::uint32_t index = h.table_.control().first_block;
            const std::uint64_t most = h.table_.control().record_bump;
            while (index != tlsf::nil && list.size() < most && !h.table_.is_corrupt()) {
                const tlsf::block_record& r = h.table_.block_at(index);
                list.push_back({r.offset, r.size, view_of(r)});
                index = r.next_physical;
            }
        },
        &views);
    return views;
}

std::uint64_t heap::live_blocks() noexcept {
    platform::lock_guard guard(mutex_);
    return map_.size() + (next() != nullptr ? next()->live_blocks() : 0);
}

std::uint64_t heap::allocated_bytes() noexcept {
    if (state_is_void()) {
        return 0;
    }
    platform::lock_guard guard(mutex_);
    const std::uint64_t allocated = __atomic_load_n(&seg_->control().allocated, __ATOMIC_RELAXED);
    return allocated - std::min(allocated, kept_.bytes());
}

std::uint64_t heap::deepest_undo() noexcept {
    platform::lock_guard guard(mutex_);
    return table_.undo().deepest();
}

void heap::note_refused() noexcept {
    platform::lock_guard guard(mutex_);
    if (lock_shared()) {
        ++seg_->control().refused;  // advisory, not journaled
        unlock_shared();
    }
}

void* heap::refuse(refusal_cause cause, std::uint64_t nbytes, int os_errno) noexcept {
    // Called with and without mutex_: the record is for people, torn is fine.
    refused_.store_cause(cause, nbytes, os_errno);
    n_refused_.fetch_add(1, std::memory_order_relaxed);
    return nullptr;
}

process_counts heap::counts() noexcept {
    platform::lock_guard guard(mutex_);
    return {map_.n_inserted(), map_.n_inserted() - map_.size(), map_.bytes(), map_.peak_bytes(),
            n_refused_.load(std::memory_order_relaxed)};
}

std::string heap::refusal() noexcept {
    const auto cause = refused_.cause.load(std::memory_order_relaxed);
    const std::string asked =
        base::human_size(refused_.nbytes.load(std::memory_order_relaxed)) + " asked";
    const int os_errno = refused_.os_errno.load(std::memory_order_relaxed);
    switch (cause) {
        case refusal_cause::none:
            return next() != nullptr ? next()->refusal() : std::string{};
        case refusal_cause::capacity:
            return "no room in the arena: " + asked + ", capacity " + base::human_size(capacity()) +
                   ", " + base::human_size(allocated_bytes()) +
                   " allocated; raise it with arena.grow() or free arrays";
        case refusal_cause::disk:
            return "no room on the device: " + asked + ", " +
                   base::human_size(seg_->fd() >= 0 ? platform::free_space(seg_->fd()) : 0) +
                   " free on the arena's file system (error " + std::to_string(os_errno) +
                   "); free space there or use another directory";
        case refusal_cause::memory:
            return "no memory for the arena's process-private tables";
        case refusal_cause::lock:
            return "another process has held the arena's lock too long; look whether it is "
                   "stopped";
        case refusal_cause::poisoned:
            return std::string("this process no longer uses the arena: ") + poison_cause_.load();
        case refusal_cause::forked:
            return "this process was made by clone or _Fork without the fork handlers; it cannot "
                   "use its parent's arena";
        case refusal_cause::read_only:
            return "the arena was opened for reading (mode 'r')";
        case refusal_cause::size:
            return asked +
                   ", more than any arena can hold, or an alignment that is not a power "
                   "of two up to 2 MiB";
    }
    return {};
}

}  // namespace ndarena::heap
