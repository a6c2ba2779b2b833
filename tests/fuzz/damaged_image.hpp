// How the target `image` damages the bytes of an arena: edits aimed at the
// tables by name, so that a few bytes of input reach every field.
#pragma once

#include "segment/segment.hpp"

#include "input.hpp"

#include <algorithm>
#include <string>
#include <vector>

namespace ndarena::fuzz {

struct region {
    std::uint64_t offset;
    std::uint64_t size;
};

class damaged_image {
public:
    // `named`: what names lead to, where the image has any.
    damaged_image(std::string& bytes, const segment::geometry& geo,
                  const std::vector<region>& named = {})
        : bytes_(bytes), geo_(geo), named_(named) {}

    // Edits until the input ends: which table, how, where, with what.
    void edit(input& in) {
        for (int i = 0; i < most_edits && !in.is_empty(); ++i) {
            const std::uint64_t choice = in.byte();
            if (choice % 16 == 15) {
                cut(in);
                continue;
            }
            const region where = choice % 16 == 14 && !named_.empty()
                                     ? named_[in.byte() % named_.size()]
                                     : tables(choice % 16);
            const std::size_t width = std::size_t{1} << (choice >> 4 & 3);
            const std::uint64_t at = where.offset + in.number(2) * width % where.size;
            if (at + 64 > bytes_.size()) {
                continue;
            }
            switch (choice >> 6) {
                case 0:
                    put(at, width, in.number(width));
                    break;
                case 1:
                    put(at, width, interesting(in.byte()));
                    break;
                case 2:
                    put(at, width, get(at, width) + in.byte() - 128);
                    break;
                default: {  // a line of the same table, as from a lost write
                    const std::uint64_t from = where.offset + in.number(2) * 64 % where.size;
                    if (from + 64 <= bytes_.size()) {
                        std::memmove(&bytes_[at & ~63ULL], &bytes_[from & ~63ULL], 64);
                    }
                    break;
                }
            }
        }
    }

    // Checksums that fit again: what lies behind them is reached.
    void sign_header() {
        if (bytes_.size() >= sizeof(segment::file_header)) {
            const std::uint32_t crc =
                base::crc32c(bytes_.data(), offsetof(segment::file_header, crc));
            put(offsetof(segment::file_header, crc), sizeof crc, crc);
        }
    }
    void sign_roots() {
        for (const std::uint64_t at : {segment::format_page, 2 * segment::format_page}) {
            if (bytes_.size() >= at + sizeof(segment::root_page)) {
                const std::uint32_t crc =
                    base::crc32c(&bytes_[at], offsetof(segment::root_page, crc));
                put(at + offsetof(segment::root_page, crc), sizeof crc, crc);
            }
        }
    }
    void sign_nodes() {
        for (const region& node : named_) {
            if (node.size == segment::format_page && bytes_.size() >= node.offset + node.size) {
                const std::uint64_t at = node.offset + node.size - 4;
                put(at, 4, base::crc32c(&bytes_[node.offset], node.size - 4));
            }
        }
    }
    // The volatile state is another instance's: what was stored is all there is.
    void reboot() {
        const std::uint64_t at = geo_.control_offset() + offsetof(segment::control_page, boot);
        if (bytes_.size() >= at + 8) {
            put(at, 8, ~get(at, 8));
        }
    }
    // A living process that stands still in an operation makes others wait for
    // seconds, by contract: it holds no lock, and no change is under way.
    void let_go(std::uint32_t slot) {
        const std::uint64_t locks = geo_.control_offset();
        const std::uint64_t generation = locks + offsetof(segment::control_page, generation);
        if (bytes_.size() < generation + 8) {
            return;
        }
        for (std::uint64_t at = locks; at < generation; at += 4) {
            if (segment::slot_lock::slot_of(static_cast<std::uint32_t>(get(at, 4))) == slot) {
                put(at, 4, 0);
            }
        }
        put(generation, 8, get(generation, 8) & ~std::uint64_t{1});
    }

private:
    static constexpr int most_edits = 24;
    static constexpr std::uint64_t used_records = 100;
    static constexpr std::uint64_t used_tokens = 16;

    region tables(std::uint64_t choice) const {
        const std::uint64_t page = segment::format_page;
        const std::uint64_t state = offsetof(segment::control_page, capacity);
        const std::uint64_t records = geo_.data_offset();
        const std::uint64_t rows =
            records + geo_.records_per_chunk() * sizeof(segment::block_record);
        switch (choice) {
            case 0:
                return {0, offsetof(segment::file_header, reserved)};
            case 1:
                return {page, 2 * page};
            case 2:
                return {geo_.control_offset(), state};  // locks, witness
            case 3:
            case 4:
            case 5:
                return {geo_.control_offset() + state, sizeof(segment::control_page) - state};
            case 6:
                return {geo_.heads_offset(), 2 * page};
            case 7:
                return {geo_.undo_offset(), page};
            case 8:
                return {geo_.radix_offset(), 2 * page};
            case 9:
                return {geo_.slots_offset(), geo_.slot_count * sizeof(segment::slot_entry)};
            case 10:
                return {rows, geo_.slot_count * geo_.row_bytes()};
            case 11:
                return {records, 8 * sizeof(segment::block_record)};
            case 12:
                return {records, used_records * sizeof(segment::block_record)};
            case 13:
                return {geo_.transit_offset(), used_tokens * sizeof(segment::transit_token)};
            default:
                return {0, bytes_.size() + 1};
        }
    }

    void cut(input& in) {
        const std::uint64_t pages = in.byte() % (bytes_.size() / segment::format_page + 2);
        const std::uint64_t odd = in.byte() * 16;
        bytes_.resize(std::min<std::uint64_t>(pages * segment::format_page + odd, most_bytes));
    }
    static constexpr std::uint64_t most_bytes = std::uint64_t{2} << 20;

    std::uint64_t interesting(std::uint64_t choice) const {
        const std::uint64_t words[] = {0,
                                       1,
                                       2,
                                       63,
                                       64,
                                       segment::nil,
                                       segment::nil - 1,
                                       0x7FFFFFFF,
                                       ~std::uint64_t{0},
                                       ~std::uint64_t{63},
                                       std::uint64_t{1} << 63,
                                       geo_.control_offset(),
                                       geo_.undo_offset(),
                                       geo_.radix_offset(),
                                       geo_.data_offset(),
                                       geo_.data_offset() + geo_.chunk_bytes(),
                                       bytes_.size(),
                                       bytes_.size() - 64,
                                       segment::max_capacity,
                                       segment::max_chunks,
                                       geo_.records_per_chunk(),
                                       geo_.records_per_chunk() - 1};
        return words[choice % std::size(words)];
    }
    std::uint64_t get(std::uint64_t at, std::size_t width) const {
        std::uint64_t value = 0;
        std::memcpy(&value, &bytes_[at], width);
        return value;
    }
    void put(std::uint64_t at, std::size_t width, std::uint64_t value) {
        std::memcpy(&bytes_[at], &value, width);
    }

    std::string& bytes_;
    segment::geometry geo_;
    std::vector<region> named_;
};

}  // namespace ndarena::fuzz
