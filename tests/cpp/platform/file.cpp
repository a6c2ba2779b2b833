#include "platform/platform.hpp"

#include "support/places.hpp"

#include <gtest/gtest.h>

#include <array>
#include <set>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace ndarena::platform {
namespace {

constexpr std::uint64_t mebibyte = std::uint64_t{1} << 20;

std::string content(int fd) {
    std::string text(64, '\0');
    const auto got = ::pread(fd, text.data(), text.size(), 0);
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
}

class File : public ::testing::Test {
protected:
    nameless_file make(const std::string& text) {
        auto file = create_nameless(dir_.path(), 0600);
        EXPECT_TRUE(file);
        (void)!::write(file->fd.get(), text.data(), text.size());
        return std::move(*file);
    }
    test::temp_dir dir_;
    std::string path_ = dir_ / "file";
};

TEST_F(File, SaysWhyItCannotOpen) {
    auto missing = open_file(path_, true, true);
    ASSERT_FALSE(missing);
    EXPECT_EQ(missing.err().code, errc::not_found);
    EXPECT_EQ(missing.err().os_errno, ENOENT);
    EXPECT_EQ(missing.err().path, path_);
    EXPECT_FALSE(missing.err().message.empty());
    test::write_file(dir_ / "target", "x");
    ASSERT_EQ(::symlink("target", path_.c_str()), 0);
    EXPECT_TRUE(open_file(path_, true, true));
    EXPECT_FALSE(open_file(path_, true, false)) << "a link where none is followed";
}

TEST_F(File, TranslatesErrno) {
    EXPECT_EQ(system_error("x", EEXIST, {}).code, errc::exists);
    EXPECT_EQ(system_error("x", EACCES, {}).code, errc::permission);
    EXPECT_EQ(system_error("x", EROFS, {}).code, errc::permission);
    EXPECT_EQ(system_error("x", ENOSPC, {}).code, errc::no_memory);
    EXPECT_EQ(system_error("x", EDQUOT, {}).code, errc::no_memory);
    EXPECT_EQ(system_error("x", ENOMEM, {}).code, errc::no_memory);
    EXPECT_EQ(system_error("x", EIO, {}).code, errc::os);
    EXPECT_EQ(system_error("x", EMFILE, {}).os_errno, EMFILE);
}

TEST_F(File, DescriptorsAreHighAndClosedOnExec) {
    const nameless_file file = make("x");
    auto copy = reopen(file.fd.get(), true);
    ASSERT_TRUE(copy);
    for (const int fd : {file.fd.get(), copy->get()}) {
        EXPECT_GE(fd, 200);
        EXPECT_NE(::fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    }
}

TEST_F(File, AppearsWholeOrNotAtAll) {
    nameless_file file = make("new");
    EXPECT_NE(::access(path_.c_str(), F_OK), 0);
    ASSERT_TRUE(give_name(file, path_, false));
    EXPECT_EQ(::access(path_.c_str(), F_OK), 0);
    struct stat st {};
    ASSERT_EQ(::stat(path_.c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777U, 0600U);
    EXPECT_EQ(st.st_nlink, 1U);
}

TEST_F(File, ExclusiveLeavesAnExistingFileAlone) {
    test::write_file(path_, "old");
    nameless_file file = make("new");
    const auto named = give_name(file, path_, false);
    ASSERT_FALSE(named);
    EXPECT_EQ(named.err().code, errc::exists);
    auto old = open_file(path_, false, false);
    ASSERT_TRUE(old);
    EXPECT_EQ(content(old->get()), "old");
}

TEST_F(File, ReplacingKeepsTheOldInodeForItsHolders) {
    test::write_file(path_, "old");
    auto holder = open_file(path_, false, false);
    ASSERT_TRUE(holder);
    nameless_file file = make("new");
    ASSERT_TRUE(give_name(file, path_, true));
    auto now = open_file(path_, false, false);
    ASSERT_TRUE(now);
    EXPECT_EQ(content(holder->get()), "old");
    EXPECT_EQ(content(now->get()), "new");
    const auto id = identify(holder->get(), path_);
    ASSERT_TRUE(id);
    EXPECT_TRUE(is_same_file(holder->get(), *id));
    EXPECT_FALSE(is_same_file(now->get(), *id));
    EXPECT_FALSE(is_same_file(-1, *id));
}

// The way that file systems without O_TMPFILE take.
TEST_F(File, GivesNamesToTemporaryFiles) {
    for (const bool replace : {false, true}) {
        nameless_file file;
        file.temporary_name = dir_ / "temporary";
        test::write_file(file.temporary_name, "new");
        auto fd = open_file(file.temporary_name, true, false);
        ASSERT_TRUE(fd);
        file.fd = std::move(*fd);
        ASSERT_TRUE(give_name(file, path_, replace));
        EXPECT_TRUE(file.temporary_name.empty());
        EXPECT_NE(::access((dir_ / "temporary").c_str(), F_OK), 0);
        EXPECT_EQ(::access(path_.c_str(), F_OK), 0);
    }
}

TEST_F(File, NamesTheMissingDirectory) {
    const auto file = create_nameless(dir_ / "nowhere", 0600);
    ASSERT_FALSE(file);
    EXPECT_EQ(file.err().code, errc::not_found);
    EXPECT_NE(file.err().message.find("directory"), std::string::npos);
}

TEST_F(File, ReservesAndGivesBack) {
    const nameless_file file = make("");
    const int fd = file.fd.get();
    ASSERT_EQ(allocate_range(fd, 0, 2 * mebibyte, false), 0);
    EXPECT_EQ(*file_size(fd, {}), 2 * mebibyte);
    EXPECT_GE(test::disk_bytes(fd), 2 * mebibyte);
    ASSERT_EQ(allocate_range(fd, 2 * mebibyte, mebibyte, true), 0);
    EXPECT_EQ(*file_size(fd, {}), 2 * mebibyte) << "the size was to be kept";
    ASSERT_EQ(::pwrite(fd, "abc", 3, static_cast<off_t>(mebibyte)), 3);
    const std::uint64_t before = test::disk_bytes(fd);
    ASSERT_EQ(punch_range(fd, mebibyte, mebibyte), 0);
    EXPECT_LE(test::disk_bytes(fd) + mebibyte, before);
    std::array<char, 3> read{'x', 'x', 'x'};
    ASSERT_EQ(::pread(fd, read.data(), read.size(), static_cast<off_t>(mebibyte)), 3);
    EXPECT_EQ(read, (std::array<char, 3>{}));
    ASSERT_TRUE(set_file_size(fd, 4096, {}));
    EXPECT_EQ(*file_size(fd, {}), 4096U);
    EXPECT_NE(allocate_range(-1, 0, 4096, false), 0);
    EXPECT_NE(punch_range(-1, 0, 4096), 0);
    EXPECT_GT(free_space(fd), 0U);
    EXPECT_EQ(free_space(-1), 0U);
}

TEST_F(File, TellsMemoryFromDisk) {
    const unique_fd memory(::memfd_create("ndarena-test", MFD_CLOEXEC));
    ASSERT_TRUE(memory);
    EXPECT_TRUE(is_memory_backed(memory.get()));
    EXPECT_TRUE(require_usable_filesystem(memory.get(), {}));
}

TEST_F(File, RefusesWhatCannotCarryAnArena) {
    const unique_fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const unique_fd directory(::open(dir_.path().c_str(), O_RDONLY | O_CLOEXEC));
    for (const int fd : {null.get(), directory.get()}) {
        const auto judged = require_usable_filesystem(fd, "it");
        ASSERT_FALSE(judged);
        EXPECT_EQ(judged.err().code, errc::format);
        EXPECT_EQ(judged.err().path, "it");
    }
    const unique_fd proc(::open("/proc/self/status", O_RDONLY | O_CLOEXEC));
    const auto judged = require_usable_filesystem(proc.get(), {});
    ASSERT_FALSE(judged);
    EXPECT_EQ(judged.err().code, errc::unsupported);
}

TEST_F(File, TakesPathsApart) {
    EXPECT_EQ(directory_of("name"), ".");
    EXPECT_EQ(directory_of("/name"), "/");
    EXPECT_EQ(directory_of("a/b/name"), "a/b");
    EXPECT_EQ(absolute_path("/name"), "/name");
    ASSERT_EQ(::symlink(".", (dir_ / "link").c_str()), 0);
    EXPECT_EQ(absolute_path(dir_ / "link/name"), absolute_path(dir_ / "name"));
    EXPECT_EQ(absolute_path(dir_ / "nowhere/name"), dir_ / "nowhere/name");
}

TEST_F(File, RandomNamesDiffer) {
    std::set<std::string> names;
    for (int i = 0; i < 100; ++i) {
        names.insert(random_name());
    }
    EXPECT_EQ(names.size(), 100U);
    EXPECT_EQ(names.begin()->size(), 32U);
    EXPECT_EQ(names.begin()->find_first_not_of("0123456789abcdef"), std::string::npos);
    EXPECT_NE(random_u64(), random_u64());
}

TEST_F(File, DescriptorsMoveAndCloseOnce) {
    nameless_file file = make("x");
    const int number = file.fd.get();
    unique_fd other = std::move(file.fd);
    EXPECT_FALSE(file.fd);  // NOLINT: what moving leaves behind is part of the class
    EXPECT_EQ(other.get(), number);
    const int released = other.release();
    EXPECT_FALSE(other);
    other.reset(released);
    errno = EBADF;
    other.reset();
    EXPECT_EQ(errno, EBADF) << "errno is kept";
    EXPECT_EQ(::fcntl(number, F_GETFD), -1);
}

}  // namespace
}  // namespace ndarena::platform
