// Everything that names lead to: after the loss of the volatile state, and for
// comparing the tree with what the heap counts.
#include "directory/store.hpp"

namespace ndarena::directory {

result<std::shared_ptr<heap::heap>> open_heap(const heap::segment_options& options) {
    return heap::heap::open(options, &find_survivors);
}

result<std::vector<heap::survivor>> find_survivors(const segment::segment& seg,
                                                   const segment::root_page& root) {
    auto bytes = seg.file_bytes();
    if (!bytes) {
        return bytes.err();
    }
    segment_source source(seg, std::min(*bytes, seg.mapped_size()));
    tree_view tree(source, {seg.header().uuid}, {root.directory, segment::nil});
    std::vector<heap::survivor> found;
    auto walked = tree.walk(
        [&](node_ref node) -> result<void> {
            found.push_back({node.offset, node_bytes, 0});
            return {};
        },
        [&](std::string_view, std::string_view value) -> result<void> {
            entry e;
            meta_block overflow;
            if (!decode_value(value, e, overflow)) {
                return source.damaged("a name has a value of an unknown kind");
            }
            if (e.offset != 0) {
                found.push_back({e.offset, e.nbytes, e.colour});
            }
            if (overflow.offset != 0) {
                found.push_back({overflow.offset, overflow.nbytes, 0});
            }
            return {};
        });
    if (!walked) {
        error failed = walked.err();
        failed.path = seg.path();
        return failed;
    }
    return found;
}

std::vector<std::string> store::check() {
    static constexpr std::size_t most_findings = 100;
    static constexpr std::uint64_t patience_ms = 10000;
    std::vector<std::string> findings;
    const bool changes = heap_.seg().writable();
    const bool own = changes && !in_transaction();
    if (own) {
        if (auto ok = begin(patience_ms); !ok) {
            return {"the names were not to be had: " + ok.err().message};
        }
    }
    std::vector<std::uint32_t> names;
    std::vector<std::uint32_t> waiting;
    if (changes) {
        heap_.count_names(names, waiting, findings);
    }
    const auto expect = [&](std::uint64_t offset, std::uint32_t hint) -> result<void> {
        if (!changes) {
            return {};
        }
        auto record = heap_.resolve_named(offset, hint);
        if (!record) {
            return record.err();
        }
        if (*record < names.size()) {
            ++waiting[*record];
        }
        return {};
    };
    auto root = root_to_read();
    result<void> walked;
    if (!root) {
        walked = root.err();
    } else {
        segment_source from = source();
        tree_view tree(from, id(), {root->offset, root->record});
        walked = tree.walk([&](node_ref node) { return expect(node.offset, node.record); },
                           [&](std::string_view, std::string_view value) -> result<void> {
                               entry e;
                               meta_block overflow;
                               (void)decode_value(value, e, overflow);
                               if (auto ok = from.read_entry(value, e); !ok) {
                                   return ok;
                               }
                               if (e.offset != 0) {
                                   if (auto ok = expect(e.offset, e.record); !ok) {
                                       return ok;
                                   }
                               }
                               return overflow.offset == 0
                                          ? result<void>{}
                                          : expect(overflow.offset, overflow.record);
                           });
    }
    if (!walked) {
        findings.push_back(walked.err().message);
    } else if (changes) {
        for (std::size_t i = 0; i < names.size() && findings.size() < most_findings; ++i) {
            if (names[i] != waiting[i]) {
                findings.push_back("block " + std::to_string(i) + " counts " +
                                   std::to_string(names[i]) + " names, the directory has " +
                                   std::to_string(waiting[i]));
            }
        }
    }
    if (own) {
        abort();
    }
    return findings;
}

}  // namespace ndarena::directory
