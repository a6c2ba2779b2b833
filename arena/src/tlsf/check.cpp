// The invariants of the block table and the free lists, each named in the
// finding that reports its breach.
#include "tlsf/tlsf.hpp"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

namespace ndarena::tlsf {

class checker {
public:
    checker(allocator& a, std::size_t limit) : a_(a), table_(a.table_), limit_(limit) {}

    std::vector<std::string> run() {
        table_.clear_corrupt();
        if (!table_.undo().is_empty()) {
            report("the undo log is not empty outside an operation");
        }
        walk_blocks();
        walk_tables();
        walk_lists();
        walk_purge_queue();
        walk_unused();
        compare_counters();
        table_.clear_corrupt();
        return std::move(findings_);
    }

private:
    void report(std::string text) {
        if (findings_.size() < limit_) {
            findings_.push_back(std::move(text));
        }
    }
    static std::string name(std::uint32_t index) { return "block " + std::to_string(index); }
    static std::string at(const block_record& r) {
        return " (offset " + std::to_string(r.offset) + ", size " + std::to_string(r.size) + ")";
    }

    // The physical chain tiles the data area without gap or overlap.
    void walk_blocks() {
        const control_page& c = table_.control();
        std::uint64_t expected = table_.geo().data_offset();
        std::uint32_t previous = nil;
        std::uint32_t index = c.first_block;
        bool previous_free = false;
        while (index != nil) {
            if (index >= c.record_bump) {
                report("the chain of blocks names record " + std::to_string(index) +
                       ", which does not exist");
                return;
            }
            if (!seen_.insert(index).second) {
                report("the chain of blocks runs in a circle at " + name(index));
                return;
            }
            const block_record& r = table_.at(index);
            if (table_.is_corrupt()) {
                report("the record chunk of " + name(index) + " cannot be found");
                return;
            }
            if (r.state == block_state::unused || r.state > block_state::punching) {
                report(name(index) + " is in the chain but in state " +
                       std::to_string(static_cast<int>(r.state)));
                return;
            }
            if (r.offset != expected) {
                report(name(index) + at(r) + " should start at offset " + std::to_string(expected) +
                       ", where the block before it ends");
                return;
            }
            if (!table_.is_placed(r)) {
                report(name(index) + at(r) + " does not lie within the committed data area");
                return;
            }
            if (r.prev_physical != previous) {
                report(name(index) + " does not point back to the block before it");
            }
            inspect(index, r, previous_free);
            previous_free = r.state == block_state::free;
            expected = r.offset + r.size;
            previous = index;
            index = r.next_physical;
        }
        if (expected != c.watermark) {
            report("the last block ends at offset " + std::to_string(expected) +
                   ", the committed area at " + std::to_string(c.watermark));
        }
        if (c.last_block != previous) {
            report("the control page names another last block than the chain has");
        }
    }

    void inspect(std::uint32_t index, const block_record& r, bool previous_free) {
        switch (r.state) {
            case block_state::free:
                ++free_;
                if (previous_free) {
                    report("blocks should have coalesced: " + name(index) + at(r) +
                           " and the one before it are both free");
                }
                if (r.payload > r.size) {
                    report(name(index) + at(r) + " has a dirty prefix longer than itself");
                }
                if (((r.flags & queued) != 0) != (r.payload >= free_lists::purge_unit)) {
                    report(name(index) + at(r) +
                           " is queued for purging though clean, or dirty and not queued");
                }
                if ((r.flags & queued) != 0) {
                    ++queued_;
                }
                if (r.holders != 0) {
                    report(name(index) + at(r) + " is free but has holders");
                }
                break;
            case block_state::allocated:
                ++allocated_;
                allocated_bytes_ += r.size;
                if (r.payload + std::uint64_t{r.colour} * 1024 > r.size) {
                    report(name(index) + at(r) + " is smaller than what was asked for");
                }
                break;
            case block_state::metadata:
                metadata_bytes_ += r.size;
                metadata_[r.offset] = r.size;
                break;
            case block_state::punching:
            case block_state::unused:
                break;
        }
    }

    // Chunks of records and radix pages lie in metadata blocks.
    void walk_tables() {
        std::uint64_t misplaced = 0;
        table_.for_each_table([&](std::uint64_t offset, std::uint64_t size) noexcept {
            const auto block = metadata_.find(offset);
            if (block == metadata_.end() || block->second < size) {
                misplaced = offset;
            }
        });
        if (misplaced != 0) {
            report("the table at offset " + std::to_string(misplaced) +
                   " does not lie within a metadata block");
        }
    }

    void walk_lists() {
        const control_page& c = table_.control();
        std::uint32_t listed = 0;
        for (unsigned first = 0; first < segment::first_level_count; ++first) {
            const bool first_bit = (c.first_level >> first & 1U) != 0;
            if (first_bit != (c.second_level[first] != 0)) {
                report("first-level bitmap and second-level bitmap " + std::to_string(first) +
                       " disagree");
            }
            for (unsigned second = 0; second < segment::second_level_count; ++second) {
                const size_class cls{first, second};
                const std::uint32_t head = a_.lists_.head(cls);
                if ((head != nil) != ((c.second_level[first] >> second & 1U) != 0)) {
                    report("list " + std::to_string(first) + "/" + std::to_string(second) +
                           " and its bitmap bit disagree");
                }
                listed += walk_list(cls, head);
            }
        }
        if (listed != free_) {
            report(std::to_string(free_) + " blocks are free, " + std::to_string(listed) +
                   " are on the free lists");
        }
    }

    std::uint32_t walk_list(size_class cls, std::uint32_t head) {
        std::uint32_t count = 0;
        std::uint32_t previous = nil;
        for (std::uint32_t index = head; index != nil; ++count) {
            const block_record& r = table_.at(index);
            if (seen_.count(index) == 0 || r.state != block_state::free || count > free_) {
                report("list " + std::to_string(cls.first) + "/" + std::to_string(cls.second) +
                       " contains " + name(index) + ", which is not a free block");
                return count;
            }
            if (!(class_of(r.size) == cls)) {
                report(name(index) + at(r) + " is on the list of another size class");
            }
            if (r.prev_free != previous) {
                report(name(index) + " does not point back in its free list");
            }
            previous = index;
            index = r.next_free;
        }
        return count;
    }

    void walk_purge_queue() {
        const control_page& c = table_.control();
        std::uint64_t bytes = 0;
        std::uint32_t previous = nil;
        std::uint32_t count = 0;
        for (std::uint32_t index = c.purge_first; index != nil; ++count) {
            const block_record& r = table_.at(index);
            if (seen_.count(index) == 0 || r.state != block_state::free ||
                (r.flags & queued) == 0 || count > free_) {
                report("the purge queue contains " + name(index) + ", which is not queued");
                return;
            }
            if (r.prev_purge != previous) {
                report(name(index) + " does not point back in the purge queue");
            }
            bytes += r.payload;
            previous = index;
            index = r.next_purge;
        }
        if (previous != c.purge_last) {
            report("the control page names another end of the purge queue than it has");
        }
        if (count != queued_) {
            report(std::to_string(queued_) + " blocks say they are queued for purging, " +
                   std::to_string(count) + " are");
        }
        if (bytes != c.purge_bytes) {
            report("the purge queue holds " + std::to_string(bytes) + " bytes, the counter says " +
                   std::to_string(c.purge_bytes));
        }
    }

    void walk_unused() {
        const control_page& c = table_.control();
        std::uint32_t count = 0;
        for (std::uint32_t index = c.record_free; index != nil; ++count) {
            const block_record& r = table_.at(index);
            if (table_.is_corrupt() || r.state != block_state::unused || seen_.count(index) != 0 ||
                count > c.record_bump) {
                report("the list of unused records contains " + name(index) + ", which is in use");
                return;
            }
            index = r.next_free;
        }
        if (count != c.record_spare) {
            report(std::to_string(count) + " records are unused, the counter says " +
                   std::to_string(c.record_spare));
        }
        if (seen_.size() + count != c.record_bump) {
            report(std::to_string(c.record_bump - seen_.size() - count) +
                   " records are neither blocks nor unused");
        }
    }

    void compare_counters() {
        const control_page& c = table_.control();
        const auto compare = [this](const char* what, std::uint64_t found, std::uint64_t says) {
            if (found != says) {
                report(std::string(what) + ": found " + std::to_string(found) +
                       ", the counter says " + std::to_string(says));
            }
        };
        compare("allocated bytes", allocated_bytes_, c.allocated);
        compare("allocated blocks", allocated_, c.allocated_count);
        compare("free blocks", free_, c.free_count);
        compare("metadata bytes", metadata_bytes_, c.metadata);
    }

    allocator& a_;
    block_table& table_;
    std::size_t limit_;
    std::vector<std::string> findings_;
    std::unordered_set<std::uint32_t> seen_;
    std::unordered_map<std::uint64_t, std::uint64_t> metadata_;  // size by offset
    std::uint32_t free_ = 0;
    std::uint32_t queued_ = 0;
    std::uint32_t allocated_ = 0;
    std::uint64_t allocated_bytes_ = 0;
    std::uint64_t metadata_bytes_ = 0;
};

std::vector<std::string> allocator::check(std::size_t limit) { return checker(*this, limit).run(); }

}  // namespace ndarena::tlsf
