// Named pools: containers that outlive their processes.
#include <ndarena/pool.hpp>

#include "support/places.hpp"
#include "support/process.hpp"

#include <gtest/gtest.h>
#include <boost/interprocess/allocators/allocator.hpp>
#include <boost/interprocess/containers/map.hpp>
#include <boost/interprocess/containers/string.hpp>
#include <boost/interprocess/containers/vector.hpp>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <random>
#include <stdexcept>

namespace ndarena {
namespace {

namespace bip = boost::interprocess;
template <class T>
using in_pool = bip::allocator<T, pool_segment::segment_manager>;
using string = bip::basic_string<char, std::char_traits<char>, in_pool<char>>;
using numbers = bip::vector<std::uint64_t, in_pool<std::uint64_t>>;
using entry = std::pair<const std::uint64_t, string>;
using table = bip::map<std::uint64_t, string, std::less<>, in_pool<entry>>;

std::string text_of(std::uint64_t i) {
    return std::string(i % 300, static_cast<char>('a' + i % 26));
}

// Adds the next number to a vector, and a string for it to a map.
void add_one(pool_segment& s) {
    auto* v = s.find_or_construct<numbers>("numbers")(s.get_segment_manager());
    auto* t = s.find_or_construct<table>("table")(std::less<>(), s.get_segment_manager());
    const std::uint64_t n = v->size();
    v->push_back(n);
    t->emplace(n, string(text_of(n).c_str(), s.get_segment_manager()));
}

// How many are in it; all of them are right.
std::uint64_t verified(pool_view& view) {
    const auto* v = view.find<numbers>("numbers");
    const auto* t = view.find<table>("table");
    if (v == nullptr || t == nullptr) {
        ADD_FAILURE() << "a container is missing";
        return 0;
    }
    EXPECT_EQ(v->size(), t->size());
    std::uint64_t i = 0;
    for (const auto& e : *t) {
        EXPECT_EQ(e.first, i);
        EXPECT_EQ((*v)[i], i);
        EXPECT_EQ(std::string(e.second.c_str()), text_of(i));
        ++i;
    }
    return v->size();
}

class Pool : public ::testing::Test {
protected:
    arena open(mode how, std::uint64_t capacity = std::uint64_t{64} << 20) {
        arena_options options;
        options.capacity = how == mode::read ? 0 : capacity;
        auto opened = arena::open(path_, how, options);
        EXPECT_TRUE(opened) << (opened ? "" : opened.err().message);
        return *opened;
    }
    static std::uint64_t count_in(const pool& p) {
        auto view = p.read();
        EXPECT_TRUE(view) << (view ? "" : view.err().message);
        return view ? verified(*view) : 0;
    }
    test::temp_dir dir_;
    std::string path_ = dir_ / "pools";
};

TEST_F(Pool, GrowsAndIsFoundAgain) {
    {
        pool p(open(mode::create), "index", 4096);
        EXPECT_EQ(p.read().err().code, errc::not_found);
        for (std::uint64_t i = 0; i < 500; ++i) {
            auto updated = p.update(add_one);
            ASSERT_TRUE(updated) << updated.err().message;
        }
        EXPECT_EQ(count_in(p), 500U);
        ASSERT_TRUE(p.flush());
    }
    {
        const pool p(open(mode::read), "index");
        EXPECT_EQ(count_in(p), 500U);
    }
    arena a = open(mode::read_write);
    pool p(a, "index");
    ASSERT_TRUE(p.update(add_one));
    EXPECT_EQ(count_in(p), 501U);
    EXPECT_EQ(a.stats().n_blocks > 0 && a.check().empty() && array_directory(a).check().empty(),
              true);
    const array_directory names(a);
    auto as_array = names.get("index");
    ASSERT_TRUE(as_array);
    EXPECT_EQ(as_array->type().descr, "'|u1'");
}

TEST_F(Pool, AViewStaysAsItWas) {
    pool p(open(mode::create), "index");
    ASSERT_TRUE(p.update(add_one));
    auto before = p.read();
    ASSERT_TRUE(before);
    for (int i = 0; i < 200; ++i) {
        ASSERT_TRUE(p.update(add_one));
    }
    EXPECT_EQ(verified(*before), 1U);
    EXPECT_EQ(count_in(p), 201U);
    auto moved = std::move(*before);
    EXPECT_EQ(verified(moved), 1U);
}

TEST_F(Pool, AnExceptionIsNothing) {
    arena a = open(mode::create);
    pool p(a, "index");
    ASSERT_TRUE(p.update(add_one));
    const auto blocks = a.stats().n_blocks;
    EXPECT_THROW((void)p.update([](pool_segment& s) {
        add_one(s);
        throw std::runtime_error("no");
    }),
                 std::runtime_error);
    EXPECT_EQ(count_in(p), 1U);
    EXPECT_EQ(a.stats().n_blocks, blocks);
    ASSERT_TRUE(p.update(add_one)) << "the transaction is over";
    EXPECT_EQ(count_in(p), 2U);
}

TEST_F(Pool, NoRoomIsNothing) {
    pool p(open(mode::create, std::uint64_t{1} << 20), "index");
    ASSERT_TRUE(p.update(add_one));
    const auto refused = p.update([](pool_segment& s) {
        auto* v = s.find<numbers>("numbers").first;
        v->resize(1'000'000);
    });
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.err().code, errc::no_memory);
    EXPECT_EQ(count_in(p), 1U);
    ASSERT_TRUE(p.update(add_one));
}

TEST_F(Pool, OneLargeStepIsTakenAtOnce) {
    pool p(open(mode::create), "index", 4096);
    int calls = 0;
    ASSERT_TRUE(p.update([&calls](pool_segment& s) {
        ++calls;
        auto* v = s.find_or_construct<numbers>("numbers")(s.get_segment_manager());
        v->resize(500'000, 3);
    }));
    EXPECT_GT(calls, 1) << "again with more room";
    auto view = p.read();
    ASSERT_TRUE(view);
    EXPECT_EQ(view->find<numbers>("numbers")->size(), 500'000U);
    EXPECT_EQ(view->find<numbers>("none"), nullptr);
    EXPECT_GT(view->size(), 4'000'000U);
}

TEST_F(Pool, WhatIsNoPool) {
    arena a = open(mode::create);
    array_directory names(a);
    std::string bytes(10'000, 'x');
    ASSERT_TRUE(names.put("array", {"'|u1'", {10'000}}, bytes.data(), bytes.size()));
    ASSERT_TRUE(names.put("empty", {"'|u1'", {0}}, nullptr, 0));
    for (const char* name : {"array", "empty"}) {
        pool p(a, name);
        EXPECT_EQ(p.read().err().code, errc::format);
        EXPECT_EQ(p.update(add_one).err().code, errc::format);
    }
    pool good(a, "good");
    ASSERT_TRUE(good.update(add_one));
    auto stored = names.get("good");
    ASSERT_TRUE(stored);
    const auto damaged = [&](std::size_t at, char value, std::uint64_t nbytes) {
        std::string copy(static_cast<const char*>(stored->data()), stored->nbytes());
        copy[at] = value;
        EXPECT_TRUE(
            names.put("bad", {"'|u1'", {static_cast<std::int64_t>(nbytes)}}, copy.data(), nbytes));
        return pool(a, "bad").read().err().code;
    };
    EXPECT_EQ(damaged(0, 'n', stored->nbytes()), errc::format) << "the magic number";
    EXPECT_EQ(damaged(8, 2, stored->nbytes()), errc::format) << "a later version";
    EXPECT_EQ(damaged(17, 1, stored->nbytes()), errc::corruption) << "another size";
    EXPECT_EQ(damaged(40, 0, stored->nbytes() - 64), errc::corruption) << "cut";
    EXPECT_EQ(pool(open(mode::read), "good").update(add_one).err().code, errc::read_only);
}

TEST_F(Pool, WritersOfSeveralProcessesLoseNothing) {
    pool p(open(mode::create), "index");
    ASSERT_TRUE(p.update(add_one));
    std::vector<test::child> writers;
    for (int w = 0; w < 4; ++w) {
        writers.emplace_back([&] {
            for (int i = 0; i < 50; ++i) {
                EXPECT_TRUE(p.update(add_one));
                (void)count_in(p);
            }
        });
    }
    for (auto& writer : writers) {
        EXPECT_EQ(test::describe_status(writer.wait()), "exit status 0");
    }
    EXPECT_EQ(count_in(p), 201U);
}

std::string bytes_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// What is on the disk then: everything as it was when the flush returned, and of what was
// written since any pages or none.
TEST_F(Pool, LossOfPowerLeavesWhatWasFlushed) {
    constexpr std::size_t page = 4096;
    std::mt19937_64 random(7);
    pool p(open(mode::create), "index", 4096);
    for (int round = 0; round < 10; ++round) {
        for (std::uint64_t i = 1 + random() % 8; i != 0; --i) {
            ASSERT_TRUE(p.update(add_one));
        }
        ASSERT_TRUE(p.flush());
        const std::uint64_t flushed = count_in(p);
        std::string stable = bytes_of(path_);
        for (std::uint64_t i = random() % 8; i != 0; --i) {
            ASSERT_TRUE(p.update(add_one));
        }
        const std::string now = bytes_of(path_);
        stable.resize(now.size());  // sizes are written early: zeros
        for (int image = 0; image < 8; ++image) {
            std::string found = stable;
            const std::uint64_t share = random() % 5;
            for (std::size_t at = 0; at < now.size(); at += page) {
                if (random() % 4 < share) {
                    found.replace(at, page, now, at, page);
                }
            }
            const std::string path = dir_ / "found";
            std::ofstream(path, std::ios::binary | std::ios::trunc) << found;
            auto opened = arena::open(path, mode::read_write);
            ASSERT_TRUE(opened) << opened.err().message;
            EXPECT_EQ(count_in(pool(*opened, "index")), flushed);
            EXPECT_TRUE(array_directory(*opened).check().empty());
            ASSERT_TRUE(pool(*opened, "index").update(add_one));
        }
    }
}

// Writers are killed wherever they are; what they were told is done is done.
TEST_F(Pool, ADeathLosesNothingAndLeavesNothingHalf) {
    arena a = open(mode::create);
    pool p(a, "index");
    ASSERT_TRUE(p.update(add_one));
    std::uint64_t least = 1;
    for (unsigned death = 0; death < 200; ++death) {
        int done[2];
        ASSERT_EQ(::pipe(done), 0);
        test::child writer([&] {
            for (;;) {
                (void)p.update(add_one);
                (void)!::write(done[1], "", 1);
            }
        });
        ::close(done[1]);
        ::usleep(300 + death * 37 % 3000);
        writer.kill();
        char told[4096];
        const ssize_t n = ::read(done[0], told, sizeof told);
        ::close(done[0]);
        const std::uint64_t now = count_in(p);
        EXPECT_GE(now, least + static_cast<std::uint64_t>(std::max<ssize_t>(n, 0)));
        least = now;
        if (least > 400) {  // begin anew: copies get longer
            ASSERT_TRUE(p.update([](pool_segment& s) {
                s.destroy<numbers>("numbers");
                s.destroy<table>("table");
                add_one(s);
            }));
            least = 1;
        }
    }
    a.reclaim();
    EXPECT_TRUE(a.check().empty());
    EXPECT_TRUE(array_directory(a).check().empty());
}

}  // namespace
}  // namespace ndarena
