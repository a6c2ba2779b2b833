// Names in one arena: what is stored, found, kept and given back.
#include "directory/arena_names.hpp"

#include <thread>

#include <gmock/gmock.h>

namespace ndarena::directory {
namespace {

TEST_F(StoreTest, FindsWhatWasPut) {
    const auto h = create_names();
    for (std::uint64_t i = 0; i < 300; ++i) {
        put_surely(*h, "name/" + std::to_string(i), 100 + i * 10, i);
    }
    EXPECT_EQ(count(*h), 300U);
    for (std::uint64_t i = 0; i < 300; ++i) {
        EXPECT_TRUE(has(*h, "name/" + std::to_string(i), 100 + i * 10, i));
    }
    EXPECT_FALSE(is_there(*h, "name/300"));
    EXPECT_EQ(all_findings(*h), "");
    auto listed = store::of(*h).list("name/29", std::nullopt, 100);
    ASSERT_TRUE(listed);
    EXPECT_THAT(*listed, testing::ElementsAre("name/29", "name/290", "name/291", "name/292",
                                              "name/293", "name/294", "name/295", "name/296",
                                              "name/297", "name/298", "name/299"));
    listed = store::of(*h).list("name/29", "name/297", 100);
    ASSERT_TRUE(listed);
    EXPECT_THAT(*listed, testing::ElementsAre("name/298", "name/299"));
}

TEST_F(StoreTest, GivesBackEverythingWithTheLastName) {
    const auto h = create_names();
    const std::uint64_t before = h->stats().n_blocks;
    for (std::uint64_t i = 0; i < 500; ++i) {
        put_surely(*h, std::to_string(i * 7919 % 500), 1000 + i, i);
    }
    for (int i = 0; i < 500; ++i) {
        auto gone = store::of(*h).erase(std::to_string(i));
        ASSERT_TRUE(gone && *gone);
    }
    auto gone = store::of(*h).erase("1");
    EXPECT_TRUE(gone && !*gone);
    EXPECT_EQ(count(*h), 0U);
    ASSERT_TRUE(h->flush());
    EXPECT_EQ(h->stats().n_blocks, before);
    EXPECT_EQ(all_findings(*h), "");
}

TEST_F(StoreTest, KeepsWhatTheStoredRootLeadsTo) {
    const auto h = create_names();
    put_surely(*h, "x", 50000, 1);
    ASSERT_TRUE(h->flush());
    const std::uint64_t stored = h->stats().allocated;
    put_surely(*h, "x", 50000, 2);
    EXPECT_GE(h->stats().allocated, stored + 50000) << "the old array may be needed again";
    put_surely(*h, "x", 50000, 3);
    EXPECT_LT(h->stats().allocated, stored + 2 * 50000 + 40000) << "no root leads to the second";
    EXPECT_EQ(all_findings(*h), "");
    ASSERT_TRUE(h->flush());
    EXPECT_LT(h->stats().allocated, stored + 20000);
    EXPECT_TRUE(has(*h, "x", 50000, 3));
    EXPECT_EQ(all_findings(*h), "");
}

TEST_F(StoreTest, OneBlockMayHaveManyNames) {
    const auto h = create_names();
    void* p = h->allocate(3000, 0, false);
    fill(p, 3000, 5);
    entry e;
    e.nbytes = 3000;
    e.shape = {3000};
    e.descr = "'|u1'";
    for (const char* name : {"a", "b", "a", "c"}) {
        ASSERT_TRUE(store::of(*h).put(name, e, p, true));
    }
    h->deallocate(p);
    EXPECT_EQ(all_findings(*h), "");
    for (const char* name : {"b", "a"}) {
        ASSERT_TRUE(store::of(*h).erase(name));
        EXPECT_EQ(all_findings(*h), "");
    }
    ASSERT_TRUE(h->flush());
    EXPECT_TRUE(has(*h, "c", 3000, 5));
    auto renamed = store::of(*h).rename("c", "d");
    ASSERT_TRUE(renamed && *renamed);
    EXPECT_TRUE(has(*h, "d", 3000, 5));
    EXPECT_FALSE(is_there(*h, "c"));
    EXPECT_EQ(all_findings(*h), "");
}

TEST_F(StoreTest, DescriptionsThatDoNotFitIntoANode) {
    const auto h = create_names();
    put_surely(*h, "x", 2000, 1);
    for (const std::size_t length : {10U, 500U, 100000U, 0U, 70000U}) {
        auto set = store::of(*h).set_attrs("x", std::string(length, 'j'));
        ASSERT_TRUE(set && *set);
        entry e;
        auto found = store::of(*h).find("x", e);
        ASSERT_TRUE(found && *found);
        EXPECT_EQ(e.attrs, std::string(length, 'j'));
        EXPECT_TRUE(has(*h, "x", 2000, 1));
        EXPECT_EQ(all_findings(*h), "");
    }
    auto too_long = store::of(*h).set_attrs("x", std::string(2 * mib, 'j'));
    ASSERT_FALSE(too_long);
    EXPECT_EQ(too_long.err().code, errc::invalid);
    auto none = store::of(*h).set_attrs("y", "{}");
    EXPECT_TRUE(none && !*none);
    ASSERT_TRUE(store::of(*h).erase("x"));
    ASSERT_TRUE(h->flush());
    EXPECT_EQ(h->stats().n_blocks, 0U);
}

TEST_F(StoreTest, TransactionsAreAllOrNothing) {
    const auto h = create_names();
    put_surely(*h, "x", 2000, 1);
    const std::uint64_t before = h->stats().n_blocks;
    store& s = store::of(*h);
    ASSERT_TRUE(s.begin(0));
    put_surely(*h, "x", 3000, 2);
    put_surely(*h, "y", 3000, 3);
    put_surely(*h, "y", 3000, 4);
    ASSERT_TRUE(s.erase("x"));
    EXPECT_TRUE(has(*h, "y", 3000, 4)) << "this thread sees what it does";
    EXPECT_FALSE(is_there(*h, "x"));
    EXPECT_FALSE(s.begin(0)) << "nested";
    std::thread([&] {
        EXPECT_TRUE(has(*h, "x", 2000, 1)) << "others do not";
        EXPECT_FALSE(is_there(*h, "y"));
        auto begun = s.begin(20);
        ASSERT_FALSE(begun);
        EXPECT_EQ(begun.err().code, errc::lock_timeout);
    }).join();
    s.abort();
    EXPECT_EQ(h->stats().n_blocks, before);
    EXPECT_TRUE(has(*h, "x", 2000, 1));
    EXPECT_EQ(count(*h), 1U);

    ASSERT_TRUE(s.begin(0));
    for (std::uint64_t i = 0; i < 200; ++i) {
        put_surely(*h, "k" + std::to_string(i), 500, i);
    }
    ASSERT_TRUE(s.erase("x"));
    ASSERT_TRUE(s.commit());
    EXPECT_FALSE(s.commit()) << "it is over";
    EXPECT_EQ(count(*h), 200U);
    EXPECT_EQ(all_findings(*h), "");
}

TEST_F(StoreTest, ReadersSeeOneMoment) {
    const auto h = create_names();
    put_surely(*h, "x", 30000, 1);
    put_surely(*h, "y", 30000, 2);
    const auto reader = open_names(heap::open_mode::read);
    ASSERT_TRUE(store::of(*reader).refresh());
    entry e;
    bool found = false;
    reader_pin pin;
    auto p = store::of(*reader).hold("x", e, found, pin);
    ASSERT_TRUE(p && found);
    for (std::uint64_t i = 0; i < 60; ++i) {
        put_surely(*h, "x", 30000, 10 + i);
        put_surely(*h, "z" + std::to_string(i), 3000, i);
        ASSERT_TRUE(store::of(*h).erase("z" + std::to_string(i)));
        if (i % 10 == 0) {
            ASSERT_TRUE(h->flush());
        }
    }
    ASSERT_TRUE(store::of(*h).erase("y"));
    EXPECT_TRUE(holds(*p, 30000, 1)) << "nobody reused what a reader sees";
    EXPECT_TRUE(has(*reader, "x", 30000, 1));
    EXPECT_TRUE(has(*reader, "y", 30000, 2));
    EXPECT_EQ(count(*reader), 2U);
    EXPECT_EQ(all_findings(*h), "");
    ASSERT_TRUE(store::of(*reader).refresh());
    EXPECT_FALSE(is_there(*reader, "y"));
    EXPECT_TRUE(has(*reader, "x", 30000, 69));
    EXPECT_TRUE(holds(*p, 30000, 1)) << "an array from before the refresh keeps its moment";
    const std::uint64_t kept = h->stats().allocated;
    pin.reset();
    ASSERT_TRUE(h->flush());
    EXPECT_LT(h->stats().allocated, kept - 60 * 30000) << "the last reader of it has gone";
    EXPECT_EQ(all_findings(*h), "");
}

TEST_F(StoreTest, FullArenaKeepsTheOldState) {
    const auto h = create_names(2 * mib);
    put_surely(*h, "x", 200 * kib, 1);
    ASSERT_TRUE(h->flush());
    std::vector<void*> fillers;
    for (std::uint64_t size = mib; size >= 64; size /= 2) {
        while (void* p = h->allocate(size, 0, false)) {
            fillers.push_back(p);
        }
    }
    entry e;
    e.nbytes = 64;
    e.shape = {64};
    e.descr = "'|u1'";
    auto done = store::of(*h).put("y", e, fillers.back(), true);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.err().code, errc::no_memory);
    EXPECT_FALSE(is_there(*h, "y"));
    EXPECT_TRUE(has(*h, "x", 200 * kib, 1));
    EXPECT_EQ(all_findings(*h), "");
    for (void* p : fillers) {
        h->deallocate(p);
    }
    EXPECT_TRUE(put(*h, "y", 1000, 2));
    EXPECT_EQ(all_findings(*h), "");
}

// Dropped arrays are waited for where there is no other room.
TEST_F(StoreTest, ReplacingInASmallArenaFlushesWhenItMust) {
    const auto h = create_names(2 * mib);
    for (std::uint64_t i = 0; i < 3; ++i) {
        put_surely(*h, "n" + std::to_string(i), 400 * kib, i);
    }
    ASSERT_TRUE(h->flush());
    // There is no room for all three again while the stored ones are kept.
    std::uint64_t refused = 0;
    for (std::uint64_t i = 0; i < 12; ++i) {
        if (!put(*h, "n" + std::to_string(i % 3), 400 * kib, 10 + i)) {
            ++refused;
            ASSERT_TRUE(h->flush());
            put_surely(*h, "n" + std::to_string(i % 3), 400 * kib, 10 + i);
        }
    }
    EXPECT_GT(refused, 0U);
    EXPECT_EQ(all_findings(*h), "");
}

TEST_F(StoreTest, ReadOnlyArenasRefuse) {
    put_surely(*create_names(), "x", 100, 1);
    const auto reader = open_names(heap::open_mode::read);
    EXPECT_TRUE(has(*reader, "x", 100, 1));
    auto gone = store::of(*reader).erase("x");
    ASSERT_FALSE(gone);
    EXPECT_EQ(gone.err().code, errc::read_only);
    auto flushed = reader->flush();
    ASSERT_FALSE(flushed);
    EXPECT_EQ(flushed.err().code, errc::read_only);
}

}  // namespace
}  // namespace ndarena::directory
