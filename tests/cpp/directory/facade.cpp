// The names as a C++ program uses them.
#include <ndarena/directory.hpp>

#include "support/places.hpp"
#include "support/process.hpp"

#include <cstring>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ndarena {
namespace {

class ArrayDirectory : public ::testing::Test {
protected:
    arena open(mode how) {
        arena_options options;
        options.capacity = how == mode::read ? 0 : std::uint64_t{16} << 20;
        auto opened = arena::open(path_, how, options);
        EXPECT_TRUE(opened) << (opened ? "" : opened.err().message);
        return *opened;
    }
    test::temp_dir dir_;
    std::string path_ = dir_ / "names";
};

TEST_F(ArrayDirectory, StoresAndFinds) {
    const std::vector<float> values = {0.5F, 0.25F, 4};
    const array_type type{"'<f4'", {3}};
    {
        array_directory names(open(mode::create));
        ASSERT_TRUE(names.put("run/loss", type, values.data(), 12));
        ASSERT_TRUE(names.put("empty", {"'<f4'", {0, 5}, true}, nullptr, 0));
        auto set = names.set_attrs("run/loss", R"({"unit": "nat"})");
        ASSERT_TRUE(set && *set);
        ASSERT_TRUE(names.flush());
    }
    const array_directory names(open(mode::read));
    EXPECT_EQ(*names.count(), 2U);
    EXPECT_THAT(*names.names(), testing::ElementsAre("empty", "run/loss"));
    EXPECT_THAT(*names.names("run/"), testing::ElementsAre("run/loss"));
    auto found = names.get("run/loss");
    ASSERT_TRUE(found);
    EXPECT_EQ(found->nbytes(), 12U);
    EXPECT_EQ(std::memcmp(found->data(), values.data(), 12), 0);
    EXPECT_EQ(found->type().descr, "'<f4'");
    EXPECT_THAT(found->type().shape, testing::ElementsAre(3));
    EXPECT_EQ(found->attrs(), R"({"unit": "nat"})");
    auto empty = names.get("empty");
    ASSERT_TRUE(empty);
    EXPECT_EQ(empty->data(), nullptr);
    EXPECT_TRUE(empty->type().fortran);
    auto none = names.get("none");
    ASSERT_FALSE(none);
    EXPECT_EQ(none.err().code, errc::not_found);
    EXPECT_TRUE(names.check().empty());
}

TEST_F(ArrayDirectory, NamesABlockWithoutCopying) {
    arena a = open(mode::create);
    array_directory names(a);
    auto* block = static_cast<int*>(a.allocate(4000));
    std::fill_n(block, 1000, 7);
    ASSERT_TRUE(names.put_block("block", {"'<i4'", {1000}}, block));
    auto held = names.get("block");
    ASSERT_TRUE(held);
    EXPECT_EQ(held->data(), block);
    ASSERT_TRUE(a.deallocate(block));
    auto gone = names.erase("block");
    ASSERT_TRUE(gone && *gone);
    EXPECT_EQ(block[999], 7) << "held still";
    EXPECT_TRUE(names.check().empty());
    const named_array moved = std::move(*held);
    EXPECT_EQ(static_cast<int*>(moved.data())[0], 7);
}

TEST_F(ArrayDirectory, TransactionsOfAnotherProcess) {
    array_directory names(open(mode::create));
    const std::uint64_t one = 1;
    const array_type type{"'<u8'", {}};
    ASSERT_TRUE(names.put("x", type, &one, 8));
    (void)test::in_child([&] {
        array_directory theirs(open(mode::read_write));
        const std::uint64_t two = 2;
        ASSERT_TRUE(theirs.begin());
        ASSERT_TRUE(theirs.put("x", type, &two, 8));
        ASSERT_TRUE(theirs.put("y", type, &two, 8));
        ASSERT_TRUE(theirs.commit());
        ASSERT_TRUE(theirs.begin());
        ASSERT_TRUE(theirs.erase("x"));
        theirs.abort();
    });
    EXPECT_EQ(*static_cast<std::uint64_t*>(names.get("x")->data()), 2U);
    auto renamed = names.rename("y", "z");
    EXPECT_TRUE(renamed && *renamed);
    EXPECT_THAT(*names.names(), testing::ElementsAre("x", "z"));
    EXPECT_TRUE(names.check().empty());
}

}  // namespace
}  // namespace ndarena
