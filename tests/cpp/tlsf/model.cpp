// Random operations against the independent model of fixture.hpp.
#include "tlsf/fixture.hpp"

#include "support/build.hpp"

#include <random>

namespace ndarena::tlsf {
namespace {

struct parameters {
    std::uint64_t seed;
    std::uint64_t bias;
    std::uint64_t largest;
};
std::ostream& operator<<(std::ostream& out, const parameters& p) {
    return out << "seed " << p.seed << ", bias " << p.bias << ", up to " << p.largest;
}

class Model : public ::testing::TestWithParam<parameters> {
protected:
    struct held {
        std::uint32_t record;
        std::uint64_t offset;
        std::uint64_t size;
        std::uint64_t alignment;
    };

    std::uint64_t below(std::uint64_t limit) { return random_() % limit; }
    bool chance(unsigned percent) { return below(100) < percent; }

    std::uint64_t random_size() {
        switch (below(4)) {
            case 0:
                return block_size_for(1 + below(2048));
            case 1:
                return block_size_for(1 + below(128 * kibibyte));
            case 2:  // a few sizes again and again
                return block_size_for((1 + below(3)) * 20000);
            default:
                return block_size_for(1 + below(GetParam().largest));
        }
    }
    std::uint64_t random_alignment(std::uint64_t size) {
        if (size >= page_block_threshold) {
            return chance(80) ? segment::format_page : segment::max_alignment;
        }
        return chance(70) ? granule : granule << below(16);
    }

    void allocate() {
        if (!world_.keep_records()) {
            return;
        }
        sync_tables();
        const std::uint64_t size = random_size();
        const std::uint64_t alignment = random_alignment(size);
        const placement p = world_.heap().allocate(size, alignment, now_);
        if (p.record == nil) {
            ASSERT_LT(model_.largest_free(), 2 * (size + alignment)) << "refused though it fits";
            world_.commit();
            return;
        }
        ASSERT_EQ(p.size, size);
        ASSERT_EQ((p.offset + GetParam().bias) % alignment, 0U);
        const block_record& r = world_.record(p.record);
        ASSERT_EQ(r.offset, p.offset);
        ASSERT_EQ(r.size, size);
        ASSERT_EQ(r.holders, 0U);
        ASSERT_EQ(r.flags, 0U);
        world_.record(p.record).payload = size;
        world_.commit();
        model_.take({p.offset, size, block_state::allocated});
        model_.verify_claims(p.offset, size, p.dirty, p.has_holes);
        model_.commit_pages(p.offset, size);
        if (chance(70)) {
            model_.scribble(p.offset, size);
        }
        held_.push_back({p.record, p.offset, size, alignment});
    }

    // Chunks that keep_records has made of free space.
    void sync_tables() {
        for (; chunks_ < world_.control().chunk_count; ++chunks_) {
            for (const extent& e : blocks_of(world_)) {
                if (e.state == block_state::metadata && !tables_.count(e.offset)) {
                    model_.take(e);
                    model_.commit_pages(e.offset, e.size);
                    model_.scribble(e.offset, e.size);
                    tables_[e.offset] = e.size;
                }
            }
        }
    }

    void release() {
        if (held_.empty()) {
            return;
        }
        const std::size_t i = below(held_.size());
        const held h = held_[i];
        held_[i] = held_.back();
        held_.pop_back();
        world_.heap().release(h.record, h.size, now_);
        world_.commit();
        model_.drop(h.offset);
    }

    void resize() {
        if (held_.empty() || !world_.keep_records()) {
            return;
        }
        sync_tables();
        held& h = held_[below(held_.size())];
        const std::uint64_t size = chance(50) ? random_size() : block_size_for(1 + below(h.size));
        placement grown;
        const bool done = world_.heap().resize(h.record, size, now_, grown);
        if (done) {
            world_.record(h.record).payload = size;
            ASSERT_EQ((world_.record(h.record).flags & holes) != 0,
                      size > h.size && grown.has_holes);
            world_.record(h.record).flags = 0;  // committed
        }
        world_.commit();
        if (!done) {
            ASSERT_GT(size, h.size) << "shrinking is always possible";
            return;
        }
        ASSERT_EQ(grown.offset, h.offset);
        ASSERT_EQ(world_.record(h.record).size, size);
        model_.drop(h.offset);
        model_.take({h.offset, size, block_state::allocated});
        if (size > h.size) {
            model_.verify_claims(h.offset + h.size, size - h.size, grown.dirty, grown.has_holes);
            model_.commit_pages(h.offset + h.size, size - h.size);
            model_.scribble(h.offset + h.size, size - h.size);
        }
        h.size = size;
    }

    void start_purge() {
        const std::uint32_t index = world_.heap().take_for_purge(now_ - below(50));
        world_.commit();
        if (index == nil) {
            return;
        }
        const block_record& r = world_.record(index);
        ASSERT_GE(r.payload, free_lists::purge_unit);
        model_.take({r.offset, r.size, block_state::punching});
        purging_.push_back(index);
    }
    void finish_purge() {
        if (purging_.empty()) {
            return;
        }
        const std::size_t i = below(purging_.size());
        const std::uint32_t index = purging_[i];
        purging_.erase(purging_.begin() + static_cast<std::ptrdiff_t>(i));
        const block_record r = world_.record(index);
        const bool punched = chance(80);
        if (punched) {
            model_.punch(r.offset, r.payload);
        }
        world_.heap().finish_purge(index, punched, now_);
        world_.commit();
        model_.drop(r.offset);
    }
    void extend() {
        const std::uint64_t size = random_size();
        const std::uint64_t alignment = random_alignment(size);
        const std::uint64_t more = world_.heap().shortfall(size, alignment);
        world_.commit();
        const std::uint64_t target = world_.control().watermark +
                                     base::align_up(std::max(more, granule), segment::format_page);
        if (target > world_.size() || !world_.keep_records()) {
            return;
        }
        sync_tables();
        const bool dirty = chance(20);
        world_.heap().extend(target, dirty, now_);
        world_.commit();
        model_.extend(target, dirty);
    }

    void compare() {
        ASSERT_EQ(blocks_of(world_), model_.blocks());
        const auto findings = world_.check();
        ASSERT_TRUE(findings.empty()) << findings.front();
        std::uint64_t allocated = 0;
        for (const held& h : held_) {
            allocated += h.size;
        }
        ASSERT_EQ(world_.control().allocated, allocated);
        ASSERT_EQ(world_.control().allocated_count, held_.size());
        ASSERT_GE(world_.control().peak_allocated, allocated);
        ASSERT_LE(world_.heap().largest_free(), model_.largest_free());
        for (std::uint32_t i = world_.control().purge_first; i != nil;) {
            const block_record& r = world_.record(i);
            ASSERT_GE(r.payload, free_lists::purge_unit);
            i = r.next_purge;
        }
    }

    world world_{64 * mebibyte, GetParam().bias};
    model model_{world_};
    std::mt19937_64 random_{GetParam().seed};
    std::vector<held> held_;
    std::vector<std::uint32_t> purging_;
    std::map<std::uint64_t, std::uint64_t> tables_{{world_.geo().data_offset(), 0}};
    std::uint32_t chunks_ = 1;
    std::uint64_t now_ = 1000;
};

TEST_P(Model, AgreesAfterEveryOperation) {
    const int operations = test::under_sanitizer ? 3000 : 20000;
    for (int i = 0; i < operations && !HasFatalFailure(); ++i) {
        now_ += below(3);
        // Filling and draining by turns.
        const unsigned allocations = i / 500 % 2 == 0 ? 50 : 20;
        const std::uint64_t what = below(100);
        if (what < allocations) {
            allocate();
        } else if (what < 70) {
            release();
        } else if (what < 85) {
            resize();
        } else if (what < 91) {
            start_purge();
        } else if (what < 97) {
            finish_purge();
        } else {
            extend();
        }
        if (!HasFatalFailure()) {
            compare();
        }
    }
    ASSERT_FALSE(HasFatalFailure());
    while (!held_.empty()) {
        release();
    }
    while (!purging_.empty()) {
        finish_purge();
    }
    compare();
    EXPECT_EQ(world_.control().allocated, 0U);
    EXPECT_LE(world_.table().undo().deepest(), 32U);
    RecordProperty("deepest_undo", static_cast<int>(world_.table().undo().deepest()));
}

INSTANTIATE_TEST_SUITE_P(Random, Model,
                         ::testing::Values(parameters{1, 0, mebibyte},
                                           parameters{2, 64, 4 * mebibyte},
                                           parameters{3, 2 * mebibyte - 64, 300 * kibibyte},
                                           parameters{4, 4096 + 192, 64 * kibibyte},
                                           parameters{5, mebibyte, 8 * mebibyte}));

}  // namespace
}  // namespace ndarena::tlsf
