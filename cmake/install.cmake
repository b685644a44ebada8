include(GNUInstallDirs)
install(TARGETS kvs-node kvs-client kvs-loadgen kvs-check RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES systemd/kvs-node.service DESTINATION lib/systemd/system)
