// What names stand for, as bytes, and bytes that stand for nothing.
#include "directory/entry.hpp"

#include <gtest/gtest.h>

#include <random>

namespace ndarena::directory {
namespace {

std::string hex(std::string_view bytes) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string text;
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        text += {digits[byte >> 4], digits[byte & 15U]};
    }
    return text;
}

entry matrix() {
    entry e;
    e.offset = 0x0102030405060708;
    e.nbytes = 48;
    e.record = 0x11121314;
    e.colour = 3;
    e.fortran = true;
    e.shape = {2, 3};
    e.descr = "'<f8'";
    e.attrs = R"({"unit": "mm"})";
    return e;
}
bool same(const entry& a, const entry& b) {
    return a.offset == b.offset && a.nbytes == b.nbytes && a.record == b.record &&
           a.colour == b.colour && a.fortran == b.fortran && a.shape == b.shape &&
           a.descr == b.descr && a.attrs == b.attrs;
}

TEST(Entry, ByteByByte) {
    const entry e = matrix();
    const std::string meta = encode_meta(e);
    EXPECT_EQ(hex(meta),
              "0200"              // dimensions
              "0000"              //
              "05000000"          // bytes of the type
              "0200000000000000"  // 2
              "0300000000000000"  // times 3
              "273c663827"        // '<f8'
              "7b22756e6974223a20226d6d227d");
    EXPECT_EQ(hex(encode_value(e, meta, {})),
              "01"                // version
              "01"                // Fortran's order
              "03"                // colour
              "00"                //
              "14131211"          // record
              "0807060504030201"  // offset
              "3000000000000000" +
                  hex(meta));
    EXPECT_EQ(hex(encode_value(e, meta, {0x10040, 7, 43, 0xAABBCCDD})),
              "01030300141312110807060504030201"
              "3000000000000000"
              "4000010000000000"  // offset of the description
              "07000000"          // its record
              "2b000000"          // its length
              "ddccbbaa"          // its checksum
              "00000000");
}

TEST(Entry, ComesBackAsItWas) {
    std::vector<entry> all(5, matrix());
    all[1].shape = {};
    all[1].attrs = {};
    all[2].offset = 0;
    all[2].nbytes = 0;
    all[2].shape = {0, 1LL << 40};
    all[3].shape.assign(max_dimensions, 1);
    all[3].fortran = false;
    all[4].descr = std::string(3000, 'd');
    all[4].attrs = std::string("\0\xff", 2);
    for (const entry& e : all) {
        const std::string meta = encode_meta(e);
        entry got;
        meta_block overflow;
        ASSERT_TRUE(decode_value(encode_value(e, meta, {}), got, overflow));
        EXPECT_EQ(overflow.offset, 0U);
        EXPECT_TRUE(same(e, got));
        // The same with its description beside the tree.
        entry apart = matrix();
        ASSERT_TRUE(decode_value(encode_value(e, meta, {4096, 9, 1234, 5}), apart, overflow));
        EXPECT_EQ(overflow.offset, 4096U);
        EXPECT_EQ(overflow.record, 9U);
        EXPECT_EQ(overflow.nbytes, 1234U);
        EXPECT_EQ(overflow.crc, 5U);
        ASSERT_TRUE(decode_meta(meta, apart));
        EXPECT_TRUE(same(e, apart));
    }
}

TEST(Entry, WhatFitsIntoANode) {
    entry e = matrix();
    for (std::size_t n = 0; n < 400; ++n) {
        e.attrs = std::string(n, 'a');
        const std::string meta = encode_meta(e);
        EXPECT_EQ(fits_in_node(meta), encode_value(e, meta, {}).size() <= max_value_bytes) << n;
    }
    EXPECT_LE(encode_value(e, encode_meta(e), {4096, 0, 1, 0}).size(), max_value_bytes);
}

TEST(Entry, CutShortItIsRefused) {
    entry e = matrix();
    e.attrs = {};  // its end is the value's: nothing says how long it is
    const std::string meta = encode_meta(e);
    meta_block overflow;
    for (const std::string& value :
         {encode_value(e, meta, {}), encode_value(e, meta, {4096, 9, 1234, 5})}) {
        for (std::size_t n = 0; n < value.size(); ++n) {
            entry got;
            EXPECT_FALSE(decode_value(std::string_view(value).substr(0, n), got, overflow)) << n;
        }
    }
    for (std::size_t n = 0; n < meta.size(); ++n) {
        entry got;
        EXPECT_FALSE(decode_meta(std::string_view(meta).substr(0, n), got)) << n;
    }
}

TEST(Entry, NumbersThatCannotBe) {
    const entry e = matrix();
    const std::string value = encode_value(e, encode_meta(e), {});
    const auto refused = [&](std::size_t at, std::string_view bytes, const std::string& from) {
        std::string changed = from;
        changed.replace(at, bytes.size(), bytes);
        entry got;
        meta_block overflow;
        return !decode_value(changed, got, overflow);
    };
    EXPECT_FALSE(refused(0, "\x01", value)) << "the sound one";
    EXPECT_TRUE(refused(0, std::string_view("\0", 1), value)) << "version 0";
    EXPECT_TRUE(refused(0, "\x02", value)) << "version 2";
    EXPECT_TRUE(refused(24, "\x41", value)) << "65 dimensions";
    EXPECT_TRUE(refused(24, "\xff\xff", value)) << "65,535 dimensions";
    EXPECT_TRUE(refused(28, "\xff\xff\xff\xff", value)) << "a type of 4 GiB";
    EXPECT_TRUE(refused(39, "\x80", value)) << "a negative length";
    EXPECT_TRUE(refused(47, "\xff", value)) << "a negative length";
    const std::string apart = encode_value(e, {}, {4096, 9, 1234, 5});
    EXPECT_FALSE(refused(24, "\x40", apart)) << "the sound one";
    EXPECT_TRUE(refused(24, std::string_view("\0\0\0\0\0\0\0\0", 8), apart)) << "it lies nowhere";
    EXPECT_TRUE(refused(36, std::string_view("\x01\x00\x10\x00", 4), apart)) << "larger than 1 MiB";
}

// Any bytes: no answer outside of them, and what is accepted is written alike.
TEST(Entry, AnyBytes) {
    std::mt19937 random(1);
    const std::string sound = encode_value(matrix(), encode_meta(matrix()), {});
    unsigned accepted = 0;
    for (int round = 0; round < 200000; ++round) {
        std::string bytes(sound);
        bytes.resize(random() % (sound.size() + 8), static_cast<char>(random()));
        for (auto edits = random() % 4; edits > 0 && !bytes.empty(); --edits) {
            bytes[random() % bytes.size()] = static_cast<char>(random());
        }
        entry e;
        meta_block overflow;
        // Exactly as long as it says, so that a sanitizer sees every step too far.
        const std::vector<char> exact(bytes.begin(), bytes.end());
        if (!decode_value({exact.data(), exact.size()}, e, overflow) || overflow.offset != 0) {
            continue;
        }
        ++accepted;
        EXPECT_LE(e.shape.size(), max_dimensions);
        entry again;
        ASSERT_TRUE(decode_value(encode_value(e, encode_meta(e), {}), again, overflow));
        EXPECT_TRUE(same(e, again));
    }
    EXPECT_GT(accepted, 1000U);
}

}  // namespace
}  // namespace ndarena::directory
