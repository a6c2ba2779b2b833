// check() names every broken invariant, and damage leads nowhere worse than
// to a finding.
#include "tlsf/fixture.hpp"

#include "support/build.hpp"

#include <gmock/gmock.h>

#include <functional>
#include <random>

namespace ndarena::tlsf {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t world_size = 16 * mebibyte;

// A world with blocks in all states, some of everything.
class lively_world : public world {
public:
    lively_world() : world(world_size) {
        heap().extend(8 * mebibyte, false, 1);
        commit();
        std::mt19937 random(5);
        for (int i = 0; i < 60; ++i) {
            const std::uint64_t size = block_size_for(1 + random() % (100 * kibibyte));
            const placement p = heap().allocate(size, granule, 1);
            record(p.record).payload = size;
            commit();
            live.push_back(p.record);
        }
        for (std::size_t i = 0; i < live.size(); i += 3) {
            heap().release(live[i], record(live[i]).size, 10 + i);
            commit();
        }
        for (std::size_t i = 0; i < live.size(); i += 3) {
            live[i] = nil;
        }
        live.erase(std::remove(live.begin(), live.end(), nil), live.end());
        (void)heap().take_for_purge(1000);
        commit();
        placement grown;
        (void)heap().resize(live[5], granule, 20, grown);
        record(live[5]).payload = granule;
        commit();
        heap().release(live.back(), record(live.back()).size, 30);
        commit();
        live.pop_back();
    }
    std::uint32_t any(block_state state, unsigned nth = 0, std::uint8_t flags = 0) {
        for (std::uint32_t i = 0; i < control().record_bump; ++i) {
            const block_record& r = record(i);
            if (r.state == state && (r.flags & flags) == flags && nth-- == 0) {
                return i;
            }
        }
        ADD_FAILURE() << "no block in state " << static_cast<int>(state);
        return 0;
    }
    std::vector<std::uint32_t> live;
};

std::string joined(const std::vector<std::string>& findings) {
    std::string all;
    for (const auto& f : findings) {
        all += f + "\n";
    }
    return all;
}

class CheckFinds : public ::testing::Test {
protected:
    void SetUp() override { ASSERT_EQ(joined(world_.check()), ""); }
    void expect(const std::string& text) { EXPECT_THAT(joined(world_.check()), HasSubstr(text)); }
    block_record& free_block(unsigned nth = 0) {
        return world_.record(world_.any(block_state::free, nth));
    }
    block_record& queued_block() { return world_.record(world_.any(block_state::free, 1, queued)); }
    block_record& allocated_block() { return world_.record(world_.any(block_state::allocated, 4)); }
    control_page& control() { return world_.control(); }
    lively_world world_;
};

TEST_F(CheckFinds, AnOperationThatNobodyFinished) {
    world_.table().undo().note(&control().watermark);
    expect("undo log");
}
TEST_F(CheckFinds, AWrongOffset) {
    allocated_block().offset += granule;
    expect("should start at offset");
}
TEST_F(CheckFinds, AWrongSize) {
    allocated_block().size += granule;
    expect("should start at offset");
}
TEST_F(CheckFinds, AnImpossibleSize) {
    allocated_block().size = ~std::uint64_t{0};
    expect("does not lie within");
    allocated_block().size = 0;
    expect("does not lie within");
}
TEST_F(CheckFinds, AWrongState) {
    allocated_block().state = block_state::unused;
    expect("in state 0");
}
TEST_F(CheckFinds, AnUnknownState) {
    allocated_block().state = static_cast<block_state>(77);
    expect("in state 77");
}
TEST_F(CheckFinds, ATableOutsideTheMetadata) {
    block_record& chunk = world_.record(0);
    ASSERT_EQ(chunk.state, block_state::metadata);
    chunk.state = block_state::allocated;
    expect("does not lie within a metadata block");
}
TEST_F(CheckFinds, NeighboursThatShouldHaveMerged) {
    block_record& r = free_block(1);
    world_.record(r.next_physical).state = block_state::free;
    expect("coalesced");
}
TEST_F(CheckFinds, ABrokenChain) {
    allocated_block().prev_physical = 3;
    expect("does not point back to the block before it");
    allocated_block().next_physical = world_.control().first_block;
    expect("circle");
    allocated_block().next_physical = 1000000;
    expect("does not exist");
    allocated_block().next_physical = nil;
    expect("the committed area");
}
TEST_F(CheckFinds, WrongEndsOfTheChain) {
    control().last_block = control().first_block;
    expect("another last block");
    control().first_block = 5;
    expect("should start at offset");
    control().first_block = nil;
    expect("the committed area");
}
TEST_F(CheckFinds, AWrongWatermark) {
    control().watermark += 4096;
    expect("the committed area");
}
TEST_F(CheckFinds, ADirtyPrefixBeyondTheBlock) {
    free_block().payload = free_block().size + granule;
    expect("dirty prefix longer");
}
TEST_F(CheckFinds, AWrongPurgeMark) {
    block_record& r = queued_block();
    r.flags = static_cast<std::uint8_t>(r.flags & ~queued);
    expect("queued for purging though clean, or dirty and not queued");
    expect("the purge queue contains");
}
TEST_F(CheckFinds, HoldersOfAFreeBlock) {
    free_block().holders = 1;
    expect("is free but has holders");
}
TEST_F(CheckFinds, ABlockSmallerThanAskedFor) {
    allocated_block().payload = allocated_block().size + 1;
    expect("smaller than what was asked for");
}
TEST_F(CheckFinds, WrongBitmaps) {
    control().first_level ^= std::uint64_t{1} << 30;
    expect("first-level bitmap");
    control().second_level[9] ^= 1U << 7;
    expect("list 9/7 and its bitmap bit disagree");
}
TEST_F(CheckFinds, AListWithoutItsHead) {
    const size_class c = class_of(free_block(2).size);
    auto* heads = reinterpret_cast<std::uint32_t*>(world_.base() + world_.geo().heads_offset());
    heads[c.first * segment::second_level_count + c.second] = nil;
    expect("its bitmap bit disagree");
    expect("are on the free lists");
}
TEST_F(CheckFinds, ABlockOnTheWrongList) {
    const size_class c = class_of(free_block(2).size);
    auto* heads = reinterpret_cast<std::uint32_t*>(world_.base() + world_.geo().heads_offset());
    auto& other = heads[20 * segment::second_level_count];
    other = heads[c.first * segment::second_level_count + c.second];
    control().first_level |= std::uint64_t{1} << 20;
    control().second_level[20] |= 1;
    expect("on the list of another size class");
}
TEST_F(CheckFinds, ABrokenFreeList) {
    block_record& r = free_block(2);
    r.prev_free = world_.any(block_state::free, 5);
    expect("does not point back in its free list");
    r.next_free = world_.any(block_state::allocated);
    expect("which is not a free block");
    r.next_free = world_.any(block_state::free, 2);  // itself
    expect("which is not a free block");
}
TEST_F(CheckFinds, ABrokenPurgeQueue) {
    block_record& r = queued_block();
    r.prev_purge = r.prev_purge == nil ? 1 : nil;
    expect("does not point back in the purge queue");
    r.next_purge = world_.any(block_state::free, 1, queued);  // itself
    expect("the purge queue contains");
}
TEST_F(CheckFinds, BlocksThatThePurgeQueueHasLost) {
    control_page& c = control();
    ASSERT_NE(c.purge_first, nil);
    c.purge_first = c.purge_last = nil;
    c.purge_bytes = 0;
    expect("blocks say they are queued for purging, 0 are");
}
TEST_F(CheckFinds, WrongEndsOfThePurgeQueue) {
    control().purge_last = world_.any(block_state::allocated);
    expect("another end of the purge queue");
    control().purge_bytes += 1;
    expect("the purge queue holds");
    control().purge_first = world_.any(block_state::allocated);
    expect("which is not queued");
}
TEST_F(CheckFinds, UnusedRecordsThatAreInUse) {
    ASSERT_NE(control().record_free, nil);
    control().record_free = world_.any(block_state::allocated);
    expect("the list of unused records contains");
}
TEST_F(CheckFinds, LostRecords) {
    control().record_free = nil;
    expect("records are unused, the counter says");
    expect("neither blocks nor unused");
    control().record_spare = 0;
    control().record_bump += 1;
    expect("neither blocks nor unused");
}
TEST_F(CheckFinds, WrongCounters) {
    control().allocated += 64;
    expect("allocated bytes: found");
    control().allocated_count += 1;
    expect("allocated blocks: found");
    control().free_count += 1;
    expect("free blocks: found");
    control().metadata += 64;
    expect("metadata bytes: found");
}
TEST_F(CheckFinds, ALostChunk) {
    auto* radix = reinterpret_cast<std::uint64_t*>(world_.base() + world_.geo().radix_offset());
    radix[segment::radix_fanout] = 12345;
    world_.forget();
    expect("the record chunk of block 0 cannot be found");
}
TEST_F(CheckFinds, ImpossibleNumbersOfRecords) {
    control().record_bump = nil;
    EXPECT_NE(joined(world_.check()), "");
    control().chunk_count = nil;
    EXPECT_NE(joined(world_.check()), "");
    control().record_bump = 0;
    EXPECT_NE(joined(world_.check()), "");
}
TEST_F(CheckFinds, AnIndexBeyondAllTables) {
    control().record_bump = nil;
    control().first_block = nil - 1;
    EXPECT_NE(joined(world_.check()), "");
    (void)world_.table().at(nil - 1);
    EXPECT_TRUE(world_.table().is_corrupt());
    world_.table().clear_corrupt();
    (void)world_.table().row_word(3, nil - 1);
    EXPECT_TRUE(world_.table().is_corrupt());
}
TEST_F(CheckFinds, NoMoreThanAskedFor) {
    control().allocated += 64;
    control().allocated_count += 1;
    control().free_count += 1;
    EXPECT_EQ(world_.heap().check(2).size(), 2U);
}

// Where metadata is damaged at random, operations end, stay within the memory,
// and either work or say that they met a contradiction.
TEST(Damage, LeadsToFindingsNotToCrashes) {
    const int rounds = test::under_sanitizer ? 300 : 3000;
    std::mt19937_64 random(99);
    int found = 0;
    for (int round = 0; round < rounds; ++round) {
        lively_world w;
        const auto& geo = w.geo();
        const struct {
            std::uint64_t offset;
            std::uint64_t size;
        } areas[] = {
            {geo.control_offset() + offsetof(control_page, capacity),
             offsetof(control_page, directory_root) - offsetof(control_page, capacity)},
            {geo.heads_offset(), 40 * 32 * 4},
            {geo.undo_offset(), sizeof(segment::undo_page)},
            {geo.radix_offset() + segment::format_page, 64},
            {geo.data_offset(), 100 * sizeof(block_record)},
        };
        for (int i = 0; i < 3; ++i) {
            const auto& area = areas[random() % std::size(areas)];
            auto* byte =
                reinterpret_cast<unsigned char*>(w.base()) + area.offset + random() % area.size;
            *byte = static_cast<unsigned char>(*byte ^ (1U << (random() % 8)));
        }
        if (random() % 2 == 0) {
            w.forget();
        }
        found += w.check().empty() ? 0 : 1;
        w.table().roll_back();
        for (int i = 0; i < 40; ++i) {
            if (random() % 2 == 0) {
                (void)w.heap().allocate(block_size_for(random() % 100000), granule, 5);
            } else {
                const std::uint32_t index = w.live[random() % w.live.size()];
                block_record& r = w.table().at(index, block_state::allocated);
                if (!w.table().is_corrupt()) {
                    w.heap().release(index, r.size, 5);
                }
            }
            if (w.table().is_corrupt()) {
                w.table().roll_back();
                w.table().clear_corrupt();
            } else {
                w.table().undo().commit();
            }
            (void)w.heap().largest_free();
            w.table().clear_corrupt();
        }
        (void)w.check();
    }
    EXPECT_GT(found, rounds / 2);
}

}  // namespace
}  // namespace ndarena::tlsf
