// Every operation can be undone as a whole until it is committed.
#include "tlsf/fixture.hpp"

#include "support/build.hpp"

#include <random>

namespace ndarena::tlsf {
namespace {

class Rollback : public ::testing::TestWithParam<std::uint64_t> {
protected:
    // One random operation, not committed. False if there was nothing to do.
    bool operate() {
        allocator& heap = world_.heap();
        const std::uint64_t size =
            block_size_for(1 + random_() % (random_() % 2 == 0 ? 3000 : 300000));
        const std::uint64_t alignment = random_() % 4 == 0 ? granule << (random_() % 12) : granule;
        const std::uint32_t index =
            live_.empty() ? nil : live_[static_cast<std::size_t>(random_() % live_.size())];
        placement p;
        switch (random_() % 7) {
            case 0:
            case 1: {
                p = heap.allocate(size, alignment, now_);
                if (p.record != nil) {
                    world_.table().undo().set(world_.record(p.record).payload, size);
                }
                return true;
            }
            case 2:
            case 3:
                if (index != nil) {
                    heap.release(index, world_.record(index).size, now_);
                }
                return index != nil;
            case 4:
                if (index != nil && heap.resize(index, size, now_, p)) {
                    world_.table().undo().set(world_.record(index).payload, size);
                }
                return index != nil;
            case 5:
                if (world_.control().watermark + 65536 <= world_.size()) {
                    heap.extend(world_.control().watermark + 65536, random_() % 3 == 0, now_);
                    return true;
                }
                return false;
            default:
                if (punching_ == nil) {
                    (void)heap.take_for_purge(now_);
                } else {
                    heap.finish_purge(punching_, random_() % 2 == 0, now_);
                }
                return true;
        }
    }
    // What is live after a commit, from the table itself.
    void look() {
        live_.clear();
        punching_ = nil;
        for (std::uint32_t i = 0; i < world_.control().record_bump; ++i) {
            const block_state state = world_.record(i).state;
            if (state == block_state::allocated) {
                live_.push_back(i);
            } else if (state == block_state::punching) {
                punching_ = i;
            }
        }
    }

    world world_{16 * mebibyte};
    std::mt19937_64 random_{GetParam()};
    std::vector<std::uint32_t> live_;
    std::uint32_t punching_ = nil;
    std::uint64_t now_ = 1;
};

TEST_P(Rollback, RestoresTheStateBefore) {
    world_.heap().extend(2 * mebibyte, false, 1);
    world_.commit();
    const int operations = test::under_sanitizer ? 400 : 3000;
    for (int i = 0; i < operations; ++i) {
        ++now_;
        ASSERT_TRUE(world_.keep_records());
        look();
        const std::string before = describe(world_);
        const auto at = random_;
        if (!operate()) {
            continue;
        }
        ASSERT_FALSE(world_.table().is_corrupt());
        world_.table().roll_back();
        ASSERT_EQ(describe(world_), before);
        const auto findings = world_.check();
        ASSERT_TRUE(findings.empty()) << findings.front();
        random_ = at;  // the same once more, for good
        (void)operate();
        world_.commit();
    }
}

INSTANTIATE_TEST_SUITE_P(Seeds, Rollback, ::testing::Range<std::uint64_t>(1, 6));

TEST(RollbackOfTables, AChunkIsThereOrNot) {
    world w(16 * mebibyte);
    w.heap().extend(mebibyte, false, 1);
    w.commit();
    const placement p = w.heap().allocate(w.geo().chunk_bytes(), segment::format_page, 1);
    w.record(p.record).payload = p.size;
    w.commit();
    const std::string before = describe(w);
    ASSERT_TRUE(w.table().add_chunk(p.offset));
    w.heap().make_metadata(p.record);
    w.table().roll_back();
    w.forget();
    EXPECT_EQ(describe(w), before);
    EXPECT_TRUE(w.check().empty());
}

}  // namespace
}  // namespace ndarena::tlsf
